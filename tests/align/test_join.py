"""Two encoders of several kinds become one model, from Python."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    BertTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTImageProcessor,
)

from modeling_lotlip import DualEncoder
from modeling_lotlip.align import align
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.towers import SMALL, WORDS


VOCABULARY = [*WORDS, "the", "green", "blue", "yellow", "is", "."]
SIZES = {**SMALL, "intermediate_size": 64}
TEXT_MODELS = {
    "mpnet": lambda: MPNetModel(MPNetConfig(vocab_size=len(VOCABULARY), **SIZES)),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(vocab_size=len(VOCABULARY), pad_token_id=0, cls_token_id=2, sep_token_id=3, **SIZES)
    ),
}
VISION_MODELS = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(image_size=32, patch_size=16, **SMALL)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **SIZES)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=16, **SIZES)),
}


def join(text_model, vision_model, tmp_path, **settings) -> SentenceTransformer:
    """Joins two encoders by drawn scenes, saves the model, and returns it as the library loads it."""
    settings = {"num_epochs": 1, "features_dir": tmp_path / "features"} | settings
    model = align(text_model, vision_model, load_scenes(12), **settings)
    model.save_pretrained(str(tmp_path / "joined"))
    return SentenceTransformer(str(tmp_path / "joined"), device="cpu")


def check_reads_as_dual_encoder(model: SentenceTransformer, folder) -> None:
    encoder = DualEncoder.from_pretrained(folder, device="cpu")
    texts = ["a red boat", "The boat is green. A blue boat is yellow."]
    images = load_scenes(3)["image"][:]
    np.testing.assert_allclose(model.encode(texts), encoder.encode_text(texts), rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.encode(images), encoder.encode_image(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_text_encoder_of_transformers_is_joined(name, vision_folder, tmp_path):
    torch.manual_seed(0)
    TEXT_MODELS[name]().save_pretrained(tmp_path / "text")
    BertTokenizer(vocab={word: index for index, word in enumerate(VOCABULARY)}).save_pretrained(tmp_path / "text")
    model = join(str(tmp_path / "text"), vision_folder, tmp_path)
    check_reads_as_dual_encoder(model, tmp_path / "joined")


@pytest.mark.parametrize("name", VISION_MODELS)
def test_an_image_encoder_of_transformers_is_joined(name, text_folder, tmp_path):
    torch.manual_seed(0)
    VISION_MODELS[name]().save_pretrained(tmp_path / "vision")
    processor_class = CLIPImageProcessor if name == "clip" else ViTImageProcessor
    processor_class(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path / "vision")
    model = join(text_folder, str(tmp_path / "vision"), tmp_path)
    check_reads_as_dual_encoder(model, tmp_path / "joined")


def test_a_text_model_with_modules_and_a_default_prompt_keeps_them(text_folder, vision_folder, tmp_path):
    """As bge and its like: `[CLS]`, a layer after it, a prompt."""
    torch.manual_seed(0)
    modules = [Transformer(text_folder), Pooling(64, pooling_mode="cls"), Dense(64, 24), Normalize()]
    prompts = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query"}
    text_model = SentenceTransformer(modules=modules, device="cpu", **prompts)
    model = join(text_model, vision_folder, tmp_path, keep="text")
    texts = ["a red boat", "the boat is green"]
    assert np.array_equal(model.encode(texts), text_model.encode(texts))
    assert model.default_prompt_name == "query"
    check_reads_as_dual_encoder(model, tmp_path / "joined")


def test_the_model_is_of_the_modules_of_the_library_alone(text_folder, vision_folder, tmp_path):
    model = join(text_folder, vision_folder, tmp_path, head="mlp")
    router, normalize = model.children()
    assert isinstance(router, Router)
    assert isinstance(normalize, Normalize)
    for route in ("text", "image"):
        modules = [type(module) for module in router.sub_modules[route]]
        assert modules == [Transformer, Pooling, Dense, Dense]
