"""A saved model as one of sentence-transformers: its embeddings, training, and saving again."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from modeling_lotlip import LotlipModel, LotlipProcessor
from tests.helpers.images import save_images


TEXTS = ["a red boat. the sea is blue", "a house", "the ground is sand. a tree. a green car"]


@pytest.fixture
def sentence_transformer(model_dir):
    return SentenceTransformer(str(model_dir), device="cpu")


@pytest.fixture
def features(model_dir):
    """A function that gives the normalized features of the model itself."""
    model = LotlipModel.from_pretrained(model_dir)
    processor = LotlipProcessor.from_pretrained(model_dir)

    @torch.no_grad()
    def compute(text=None, images=None, **kwargs):
        get = model.get_image_features if text is None else model.get_text_features
        inputs = processor(text=text, images=images, return_tensors="pt", **kwargs)
        return normalize(get(**inputs).pooler_output, dim=-1)

    return compute


def test_texts_images_and_files_have_the_features_of_the_model(sentence_transformer, features, tmp_path):
    images = [Image.linear_gradient("L").crop((0, 0, 256, 60 * index)) for index in range(1, 4)]
    paths = [str(path) for path in sorted(save_images(tmp_path, images).iterdir())]
    torch.testing.assert_close(sentence_transformer.encode(TEXTS, convert_to_tensor=True), features(text=TEXTS))
    expected = features(images=images)
    for given in (images, paths):
        torch.testing.assert_close(sentence_transformer.encode(given, convert_to_tensor=True), expected)
    # one text at a time, without padding
    alone = sentence_transformer.encode(TEXTS, batch_size=1, convert_to_tensor=True)
    torch.testing.assert_close(alone, features(text=TEXTS), atol=1e-5, rtol=0)
    assert sentence_transformer.get_embedding_dimension() == 32
    similarity = sentence_transformer.similarity(alone, expected)
    torch.testing.assert_close(similarity, alone @ expected.t())


def test_the_limit_is_that_of_the_text(sentence_transformer, features, caplog):
    assert sentence_transformer.max_seq_length == 126
    text = "a red boat. the sea is blue. " * 30
    logging.getLogger("transformers").addHandler(caplog.handler)
    embeds = sentence_transformer.encode(text, convert_to_tensor=True)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "1 of 1 texts are longer than 126 tokens" in caplog.text, "nothing is cut off in silence"
    torch.testing.assert_close(embeds, features(text=[text], truncation=True)[0])


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_lotlip"] = None  # as if it were not installed
import numpy as np
from sentence_transformers import SentenceTransformer
results, text, image, *folders = sys.argv[1:]
models = [SentenceTransformer(folder, device="cpu", trust_remote_code=True) for folder in folders]
np.save(results, [[model.encode(given) for given in (text, image)] for model in models])
"""


def test_saved_with_its_code_by_the_package_and_by_sentence_transformers(sentence_transformer, model_dir, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "image.png")
    given = [TEXTS[0], str(tmp_path / "image.png")]
    expected = [sentence_transformer.encode(each) for each in given]
    sentence_transformer.save_pretrained(str(tmp_path / "saved"))
    loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.array_equal([loaded.encode(each) for each in given], expected)

    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, tmp_path / "embeds.npy", *given]
    subprocess.run([*command, model_dir, tmp_path / "saved"], check=True)
    # a process with other threads rounds otherwise
    np.testing.assert_allclose(np.load(tmp_path / "embeds.npy"), [expected] * 2, rtol=0, atol=1e-6)
