"""A dual encoder of every family: the same numbers as a plain call of transformers, in every form of input."""

import json
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPTextModel

from modeling_lotlip import DualEncoder
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import find_models, load_encoder
from modeling_lotlip.encoder.hashes import hash_processor
from tests.conftest import WORDS, build_lotlip
from tests.helpers.commands import run_command
from tests.helpers.dual_encoders import FAMILIES, IMAGES, LONG, SHORT, brute_force, flatten


TEXTS = [*flatten(SHORT)[0], *flatten(LONG)[0]]


def load(folder, max_length=None) -> DualEncoder:
    return DualEncoder.from_pretrained(folder, device="cpu", max_length=max_length)


def call_plainly(folder, family, texts, images):
    """The output of the model by transformers alone."""
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=texts, images=images, return_tensors="pt", max_length=family.limit, **family.text_kwargs)
    with torch.no_grad():
        return model(**inputs)


def normalized(embeds: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embeds, dim=-1).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_are_those_of_a_plain_call(name, family_folders):
    family = FAMILIES[name]
    folder = family_folders(name)
    outputs = call_plainly(folder, family, TEXTS, IMAGES)
    encoder = load(folder)

    texts = encoder.encode_text(TEXTS)
    images = encoder.encode_image(IMAGES)

    np.testing.assert_allclose(texts, normalized(outputs.text_embeds), rtol=0, atol=2e-5)
    np.testing.assert_allclose(images, normalized(outputs.image_embeds), rtol=0, atol=2e-5)
    # the model tells these images and texts apart, or all of this would say little
    for embeds in (images, texts[: len(flatten(SHORT)[0])]):
        similarities = embeds @ embeds.T
        np.fill_diagonal(similarities, 0)
        assert similarities.max() < 1 - 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_an_embedding_does_not_depend_on_what_is_beside_it(name, family_folders):
    encoder = load(family_folders(name))
    alone = [encoder.encode_text(text) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode_text(TEXTS, batch_size=1), alone, rtol=0, atol=2e-5)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), alone, rtol=0, atol=2e-5)
    alone = [encoder.encode_image(image) for image in IMAGES]
    np.testing.assert_allclose(encoder.encode_image(IMAGES, batch_size=2), alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_evaluation_gives_the_recalls_of_a_plain_call(name, family_folders, noise_dir, tmp_path):
    family = FAMILIES[name]
    folder = family_folders(name)
    arguments = ("--model_name_or_path", folder, "--dataset_name", noise_dir, "--batch_size", 4)
    results = run_command("evaluate", tmp_path / "results.json", *arguments)
    assert results["max_length"] == family.limit

    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    for kind, captions in (("short", SHORT), ("long", LONG)):
        texts, owners = flatten(captions)
        outputs = call_plainly(folder, family, texts, IMAGES)
        for metric, value in brute_force(outputs.logits_per_text.numpy(), owners).items():
            assert results[f"{kind}_{metric}"] == pytest.approx(value), (kind, metric)
        lengths = [len(tokenizer(text, truncation=False)["input_ids"]) for text in texts]
        assert results[f"{kind}_truncated"] == pytest.approx(np.mean(np.array(lengths) > family.limit))
    assert 0 < results["long_truncated"] < 1
    assert results["short_truncated"] < 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_longer_text_is_truncated_at_the_limit_of_the_model(name, family_folders):
    family = FAMILIES[name]
    folder = family_folders(name)
    whole = AutoProcessor.from_pretrained(folder).tokenizer(LONG[-1][0], truncation=False)["input_ids"]
    assert len(whole) > family.limit

    inputs, truncated = load(folder).preprocessing.tokenize([*LONG[-1], "a red boat"])

    assert truncated == [True, False]
    expected = whole[: family.limit]
    if family.has_end_token:
        expected[-1] = whole[-1]
    assert inputs["input_ids"][0].tolist() == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_max_length_is_bound_by_the_positions_of_the_model(name, family_folders):
    family = FAMILIES[name]
    folder = family_folders(name)
    text = " ".join(WORDS * 40)

    inputs, truncated = load(folder, max_length=9).preprocessing.tokenize(["a red boat", text])
    padded_length = 9
    if family.text_kwargs["padding"] == "max_length":
        padded_length = family.limit
    assert inputs["input_ids"].shape == (2, padded_length)
    assert truncated == [False, True]

    encoder = load(folder, max_length=family.num_positions)
    assert encoder.preprocessing.tokenize([text]).inputs["input_ids"].shape == (1, family.num_positions)
    assert np.isfinite(encoder.encode_text(text)).all()

    beyond = family.num_positions + 1
    with pytest.raises(ValueError, match=rf"--max_length {beyond}. is beyond the {family.num_positions} tokens"):
        load(folder, max_length=beyond)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_within_max_length_is_the_same_text(name, family_folders):
    """Also of a model that reads padding."""
    expected = load(family_folders(name)).encode_text(["a red boat", "sea"])
    found = load(family_folders(name), max_length=20).encode_text(["a red boat", "sea"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_encoders_of_one_processor_truncate_each_at_its_own_limit_in_threads(family_folders):
    whole = load(family_folders("lotlip"))
    cut = DualEncoder(whole.model, whole.processor, max_length=9)
    texts = [" ".join(WORDS * 3)] * 4

    def tokenize(encoder: DualEncoder) -> set[int]:
        return {encoder.preprocessing.tokenize(texts).inputs["input_ids"].shape[1] for _ in range(100)}

    length = whole.preprocessing.tokenize(texts).inputs["input_ids"].shape[1]
    assert length > 9
    with ThreadPoolExecutor(2) as executor:
        lengths = list(executor.map(tokenize, [whole, cut]))
    assert lengths == [{length}, {9}]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_embedding_of_no_words_has_length_1_or_is_an_error(name, family_folders):
    encoder = load(family_folders(name))
    if name == "tipsv2":  # whose special tokens are none, and whose embedding is their mean
        with pytest.raises(ValueError, match=r"embedding of `texts\[1\]` is zero: give a text with words"):
            encoder.encode_text(["sea", ""])
    else:
        lengths = np.linalg.norm(encoder.encode_text(["sea", ""]), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_truncated_texts_are_said_once_with_their_number(family_folders, caplog):
    encoder = load(family_folders("lotlip"), max_length=9)
    texts = [" ".join(WORDS[:length]) for length in (2, 7, 8, 9)]
    encoder.encode_text(texts * 200)
    messages = [record.message for record in caplog.records if "truncated" in record.message]
    assert messages == ["400 of 800 texts were truncated: they have more than 9 tokens."]


@pytest.mark.parametrize("name", ["lotlip", "clip"])
def test_a_processor_is_the_same_one_offline_and_after_a_call(name, family_folders, monkeypatch, tmp_path):
    """Else an index would not be found again."""
    hashes = set()
    for is_offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
        encoder = load(family_folders(name))
        hashes.add(hash_processor(encoder.processor))
        encoder.preprocessing.tokenize(["a red boat"], 7)
        hashes.add(hash_processor(encoder.processor))
    encoder.processor.save_pretrained(tmp_path)
    hashes.add(hash_processor(AutoProcessor.from_pretrained(tmp_path)))
    assert len(hashes) == 1


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
@pytest.mark.parametrize("name", ["lotlip", "clip"])
def test_the_sides_that_texts_are_padded_and_truncated_on_count(name, side, family_folders):
    encoder = load(family_folders(name))
    settings = encoder.settings()
    setattr(encoder.processor.tokenizer, side, "left")
    assert encoder.settings() != settings


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("siglip")])
def test_siglip_reads_lower_case(name, family_folders):
    encoder = load(family_folders(name))
    shouted = encoder.encode_text([text.upper() for text in SHORT[3]])
    np.testing.assert_array_equal(shouted, encoder.encode_text(SHORT[3]))


def test_text_tower_with_fewer_positions_than_its_tokenizer(tmp_path):
    for part in build_lotlip(max_position_embeddings=32):
        part.save_pretrained(tmp_path)
    inputs, truncated = load(tmp_path).preprocessing.tokenize(LONG[-1])
    assert inputs["input_ids"].shape == (1, 30)
    assert truncated == [True]


def test_no_dual_encoder(tmp_path, family_folders):
    AutoModel.from_pretrained(family_folders("vit_bert")).text_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is a BertModel, no dual encoder"):
        load(tmp_path)


def test_a_model_that_compares_tokens_is_refused(token_wise_dir):
    with pytest.raises(ValueError, match="has no single embedding of either"):
        load(token_wise_dir)
    # evaluation loads it, and ranks by its tokens
    encoder = load_encoder(str(token_wise_dir), LoadingArguments(device="cpu"))
    with pytest.raises(ValueError, match="has no single embedding of either"):
        encoder.encode_text("a red boat")


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request):
    """Another one than float32 for new tensors, as programs set it that embed among other things."""
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_embeddings_are_float32_whatever_the_default_is(family_folders, default_dtype):
    encoder = load(family_folders("lotlip"))
    labels = ["boat", "house"]
    texts = encoder.encode_text(labels)
    images = encoder.encode_image(IMAGES[:2])
    probabilities = encoder.classify(IMAGES[:2], labels)
    torch.set_default_dtype(default_dtype)
    loaded = load(family_folders("lotlip"))
    for found in (encoder, loaded):
        np.testing.assert_array_equal(found.encode_text(labels), texts)
        np.testing.assert_array_equal(found.encode_image(IMAGES[:2]), images)
        np.testing.assert_allclose(found.classify(IMAGES[:2], labels), probabilities, rtol=1e-6)


class TestFormsOfInput:
    def test_one_text_and_many(self, encoder):
        many = encoder.encode_text(("a red boat", "a house"))
        assert many.shape == (2, encoder.dim)
        assert many.dtype == np.float32
        assert encoder.encode_text("a house").shape == (encoder.dim,)
        assert encoder.encode_text([]).shape == (0, encoder.dim)

    def test_convert_to_tensor_gives_a_tensor_of_the_same_embeddings(self, encoder):
        embeds = encoder.encode_text(["a red boat"], convert_to_tensor=True)
        assert isinstance(embeds, torch.Tensor)
        np.testing.assert_array_equal(embeds, encoder.encode_text(["a red boat"]))

    def test_what_is_no_text_is_named(self, encoder):
        with pytest.raises(ValueError, match=r"`texts\[1\]` must be a string, got nan"):
            encoder.encode_text(["a red boat", float("nan")])

    def test_paths_bytes_images_and_arrays_are_the_same_image(self, encoder, tmp_path):
        path = tmp_path / "image.png"
        IMAGES[0].save(path)
        expected = encoder.encode_image(IMAGES[0])
        array = np.array(IMAGES[0])
        for form in (path, str(path), path.read_bytes(), array):
            np.testing.assert_array_equal(encoder.encode_image(form), expected)
        np.testing.assert_array_equal(encoder.encode_image([path, array]), [expected, expected])
        np.testing.assert_array_equal(encoder.encode_image(np.stack([array, array])), [expected, expected])

    def test_images_are_turned_upright(self, encoder, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        IMAGES[0].save(tmp_path / "turned.png", exif=exif)
        upright = IMAGES[0].transpose(Image.Transpose.ROTATE_270)
        turned = encoder.encode_image(tmp_path / "turned.png")
        np.testing.assert_allclose(turned, encoder.encode_image(upright), rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "broken, problem",
        [
            ("nowhere.png", "there is no such file"),
            (b"no image", "cannot identify image file"),
            (np.zeros((4, 4, 3)), "is no image of 8 bits"),
            (7, "a int is none"),
        ],
    )
    def test_an_image_that_cannot_be_read_is_named(self, encoder, broken, problem):
        with pytest.raises(ValueError, match=rf"`images\[1\]`.* cannot be read as an image: .*{problem}"):
            encoder.encode_image([IMAGES[0], broken])

        embeds, problems = encoder.encode_image([IMAGES[0], broken, IMAGES[1]], errors="return")

        assert list(problems) == [1]
        assert problem in problems[1]
        assert np.isnan(embeds[1]).all()
        np.testing.assert_allclose(embeds[[0, 2]], encoder.encode_image(IMAGES[:2]), rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "broken",
        [
            np.zeros(5, np.uint8),
            np.zeros((0, 5, 3), np.uint8),
            np.zeros((4, 4), np.uint16),
            Image.new("F", (4, 4)),
            Image.new("RGB", (0, 4)),
            "a" * 5000,
        ],
        ids=["row", "empty", "16 bits", "float image", "no pixels", "long name"],
    )
    def test_one_odd_image_leaves_the_others(self, encoder, broken):
        embeds, problems = encoder.encode_image([broken, IMAGES[0]], errors="return")
        assert list(problems) == [0]
        np.testing.assert_allclose(embeds[1], encoder.encode_image(IMAGES[0]), rtol=0, atol=1e-6)

    def test_an_image_that_was_opened_and_is_damaged_is_named(self, encoder, tmp_path):
        IMAGES[0].save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
        with Image.open(tmp_path / "cut.png") as opened:
            with pytest.raises(ValueError, match=r"`images\[1\]` cannot be read as an image"):
                encoder.encode_image([IMAGES[0], opened])

    def test_an_image_that_was_opened_and_not_decoded_may_be_in_a_list_twice(self, encoder, tmp_path):
        Image.effect_noise((2000, 2000), 50).save(tmp_path / "large.png", compress_level=1)
        with Image.open(tmp_path / "large.png") as opened:
            embeds = encoder.encode_image([opened] * 4, batch_size=1)
        np.testing.assert_array_equal(embeds, [embeds[0]] * 4)

    @pytest.mark.parametrize("dtype", [str, object])
    def test_an_array_of_paths_is_a_list(self, encoder, dtype, tmp_path):
        IMAGES[0].save(tmp_path / "image.png")
        paths = np.array([str(tmp_path / "image.png"), str(tmp_path / "nowhere.png")], dtype=dtype)
        embeds, problems = encoder.encode_image(paths, errors="return")
        assert embeds.shape == (2, encoder.dim)
        assert problems == {1: "there is no such file"}

    def test_a_folder_is_no_image(self, encoder, tmp_path):
        with pytest.raises(ValueError, match="it is a folder: give the paths of its images"):
            encoder.encode_image(tmp_path)

    def test_embeddings_that_are_not_finite_are_refused(self, family_folders):
        encoder = load(family_folders("clip"))
        with torch.no_grad():
            encoder.model.text_projection.weight.fill_(torch.nan)
            encoder.model.visual_projection.weight.fill_(torch.inf)
        with pytest.raises(ValueError, match=r"`texts\[\d\]` holds NaN or infinity, since its"):
            encoder.encode_text(["a red boat", "a house"])
        with pytest.raises(ValueError, match=r"`images\[\d\]` holds NaN or infinity, since its"):
            encoder.encode_image(IMAGES[:2], errors="return")

    def test_open_files_and_gray_arrays_are_images(self, encoder, tmp_path):
        IMAGES[0].convert("L").save(tmp_path / "gray.png")
        expected = encoder.encode_image(tmp_path / "gray.png")
        with open(tmp_path / "gray.png", "rb") as file:
            np.testing.assert_array_equal(encoder.encode_image(file), expected)
        gray = np.array(IMAGES[0].convert("L"))
        np.testing.assert_array_equal(encoder.encode_image(gray[:, :, None]), expected)

    def test_what_is_no_list_is_refused(self, encoder):
        with pytest.raises(ValueError, match="`texts` must be a list, got None"):
            encoder.encode_text(None)
        with pytest.raises(ValueError, match="`images` must be a list, got 7"):
            encoder.encode_image(7)

    def test_half_of_a_surrogate_pair_is_no_text(self, encoder):
        with pytest.raises(ValueError, match=r"`texts\[1\]` is no Unicode text, got '\\ud83d'"):
            encoder.encode_text(["a red boat", "\ud83d"])

    @pytest.mark.parametrize("items", [{"a": 1}, {"a", "b"}, pd.DataFrame({"caption": ["a red boat"]})], ids=type)
    def test_what_gives_no_items_in_order_is_refused(self, encoder, items):
        with pytest.raises(ValueError, match="`texts` must be a list, got a"):
            encoder.encode_text(items)
        with pytest.raises(ValueError, match="`images` must be a list, got a"):
            encoder.encode_image(items)

    @pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "8"])
    def test_a_batch_size_that_is_no_positive_integer_is_refused(self, encoder, batch_size):
        with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
            encoder.encode_text(["a red boat"], batch_size=batch_size)
        with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
            encoder.encode_image(IMAGES, batch_size=batch_size)

    def test_unknown_way_of_errors(self, encoder):
        with pytest.raises(ValueError, match="`errors` must be 'raise' or 'return', got 'ignore'"):
            encoder.encode_image(IMAGES, errors="ignore")


@pytest.mark.parametrize("name", ["lotlip", "clip", "siglip", "align", "tipsv2"])
def test_classes_have_the_probabilities_of_a_plain_call(name, family_folders):
    """By a softmax, or the sigmoid for a model that was trained so; the temperature of ALIGN and TIPSv2 divides."""
    family = FAMILIES[name]
    folder = family_folders(name)
    labels = ["red boat", "house", "green tree"]
    logits = call_plainly(folder, family, [f"a photo of a {label}" for label in labels], IMAGES).logits_per_image
    expected = logits.sigmoid() if name == "siglip" else logits.softmax(dim=-1)

    probabilities = load(folder).classify(IMAGES, labels)

    np.testing.assert_allclose(probabilities, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_class_embeddings_are_means_over_templates(encoder):
    (embedding,) = encoder.embed_classes(["boat"], ["a {}", "the {} is red"]).numpy()
    mean = encoder.encode_text(["a boat", "the boat is red"]).mean(axis=0)
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), rtol=0, atol=1e-6)


def test_classes_without_a_place_for_the_name(encoder):
    with pytest.raises(ValueError, match="`templates` has 'a photo', without {}"):
        encoder.classify(IMAGES, ["boat"], ["a photo"])
    with pytest.raises(ValueError, match="`labels` must be a list of strings, got 'boat'"):
        encoder.classify(IMAGES, "boat")
    with pytest.raises(ValueError, match=r"`templates` must be a list of strings, got \[\]"):
        encoder.classify(IMAGES, ["boat"], [])


def test_labels_and_templates_are_lists_of_any_kind(encoder):
    labels = ["boat", "house"]
    templates = ["a {}", "the {} is red"]
    expected = encoder.classify(IMAGES[0], labels, templates)
    found = encoder.classify(IMAGES[0], (label for label in labels), pd.Series(templates, index=[3, 5]))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"`labels\[1\]` must be a string, got 2"):
        encoder.classify(IMAGES[0], ["boat", 2])
    with pytest.raises(ValueError, match="`templates` must be a list, got a set"):
        encoder.classify(IMAGES[0], labels, set(templates))


def test_threads_may_share_one(encoder):
    texts = [" ".join(WORDS[: 1 + number % 12]) for number in range(64)]
    expected = [encoder.encode_text(text) for text in texts]
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(encoder.encode_text, texts))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_pickled_encoder_gives_the_same_embeddings(encoder):
    copied = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_allclose(copied.encode_text("a red boat"), encoder.encode_text("a red boat"), rtol=0, atol=1e-6)
    assert copied.settings() == encoder.settings()


def test_truncated_embeddings_are_normalized_again(encoder):
    shorter = DualEncoder(encoder.model, encoder.processor, truncate_dim=8)
    assert shorter.dim == 8
    expected = encoder.encode_text("a red boat")[:8]
    np.testing.assert_allclose(
        shorter.encode_text("a red boat"), expected / np.linalg.norm(expected), rtol=0, atol=1e-6
    )


def test_nothing_is_set_on_the_model(family_folders):
    model = AutoModel.from_pretrained(family_folders("clip"))
    before = set(vars(model))
    processor = AutoProcessor.from_pretrained(family_folders("clip"))
    encoder = DualEncoder(model, processor, max_length=9, truncate_dim=8)
    encoder.encode_text("a red boat")
    assert set(vars(model)) == before


def test_a_model_that_is_trained_further_is_another_one(family_folders):
    encoder = load(family_folders("lotlip"))
    settings = encoder.settings()
    expected = encoder.encode_text("a red boat")
    encoder.model.train()
    np.testing.assert_array_equal(encoder.encode_text("a red boat"), expected)
    assert encoder.model.training
    with torch.no_grad():
        encoder.model.text_projection.weight.mul_(2)
    assert encoder.settings() != settings


def test_modules_train_again_that_trained_before(family_folders):
    """A part that is frozen in evaluation mode stays so, and one that trains alone embeds without dropout."""
    model = AutoModel.from_pretrained(family_folders("vit_bert"))
    encoder = DualEncoder(model, AutoProcessor.from_pretrained(family_folders("vit_bert")))
    expected = encoder.encode_text("a red boat")
    model.text_model.train()
    np.testing.assert_array_equal(encoder.encode_text("a red boat"), expected)
    assert model.text_model.encoder.training
    assert not model.training
    model.train()
    model.vision_model.eval()
    encoder.encode_image(IMAGES[0])
    assert model.training
    assert not model.vision_model.training


def test_encoders_with_one_processor_keep_their_limits(family_folders):
    processor = AutoProcessor.from_pretrained(family_folders("clip"))
    short = DualEncoder(AutoModel.from_pretrained(family_folders("clip")), processor)
    long = DualEncoder(AutoModel.from_pretrained(family_folders("long_clip")), processor)
    assert short.max_length == 77
    assert long.max_length == 248
    assert short.encode_text("red " * 100).shape == (short.dim,)


@pytest.mark.parametrize("limit", [50, 10_000])
def test_nothing_is_set_on_a_processor_of_the_user(family_folders, limit):
    """Whose tokenizer has another limit than the model: 50 with 77 positions, or none at all."""
    processor = AutoProcessor.from_pretrained(family_folders("clip"))
    tokenizer = processor.tokenizer
    tokenizer.model_max_length = limit
    encoder = DualEncoder(AutoModel.from_pretrained(family_folders("clip")), processor)
    encoder.encode_text("red " * 100)
    assert processor.tokenizer is tokenizer
    assert tokenizer.model_max_length == limit
    assert encoder.max_length == min(limit, 77)
    assert encoder.preprocessing.tokenizer.model_max_length == min(limit, 77)


def test_the_limit_of_texts_is_a_setting(encoder):
    shorter = DualEncoder(encoder.model, encoder.processor, max_length=9)
    assert shorter.settings() == encoder.settings() | {"max_length": 9}


@pytest.mark.parametrize("max_length", [-1, 0, 1, 2, 5.5, "10", True])
def test_max_length_has_room_for_a_text(encoder, max_length):
    with pytest.raises(ValueError, match="`max_length` must be an integer of at least 3"):
        DualEncoder(encoder.model, encoder.processor, max_length=max_length)


def test_the_number_of_kept_dimensions_may_be_set_after_a_text_was_embedded(encoder):
    changed = DualEncoder(encoder.model, encoder.processor)
    whole = changed.encode_text("a red boat")
    for dim in (8, 4, None):
        changed.truncate_dim = dim
        expected = DualEncoder(encoder.model, encoder.processor, truncate_dim=dim)
        found = changed.encode_text("a red boat")
        np.testing.assert_array_equal(found, expected.encode_text("a red boat"))
        assert changed.dim == expected.dim
    assert changed.dim == len(whole)
    with pytest.raises(ValueError, match=f"1000` is more than the {len(whole)} dimensions"):
        changed.truncate_dim = 1000
    assert changed.truncate_dim is None


@pytest.mark.parametrize("truncate_dim", [-1, 0, 2.5, "8", True])
def test_an_embedding_keeps_a_number_of_dimensions(encoder, truncate_dim):
    with pytest.raises(ValueError, match="`truncate_dim` must be an integer of at least 1"):
        DualEncoder(encoder.model, encoder.processor, truncate_dim=truncate_dim)


def test_a_subclass_is_loaded_as_itself(family_folders):
    class OwnEncoder(DualEncoder):
        pass

    assert type(OwnEncoder.from_pretrained(family_folders("clip"), device="cpu")) is OwnEncoder


def test_a_revision_of_a_folder_is_refused(family_folders):
    with pytest.raises(ValueError, match="`revision` main is of a repository on the Hub"):
        DualEncoder.from_pretrained(family_folders("lotlip"), revision="main")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be used: there is no such folder"):
        DualEncoder.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_file_of_weights_is_refused_with_what_makes_a_folder_of_it(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is a file, and a model is a folder: .* `lotlip convert"):
        DualEncoder.from_pretrained(tmp_path / "model.pt")


def test_a_folder_that_is_not_there_with_a_path_like_a_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match="outputs/nowhere` cannot be used: there is no such folder"):
        DualEncoder.from_pretrained("outputs/nowhere")


@pytest.mark.parametrize("with_code", [False, True])
@pytest.mark.parametrize(("name", "tensor"), [("clip", "text_projection.weight"), ("lotlip", "logit_scale")])
def test_weights_that_lack_a_tensor_are_refused(family_folders, tmp_path, name, tensor, with_code):
    """The library would initialize it at random."""
    folder = shutil.copytree(family_folders(name), tmp_path / name)
    weights = load_file(folder / "model.safetensors")
    weights.pop(tensor)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"cannot be used: the weights lack 1 tensors of .*, `{tensor}` first"):
        DualEncoder.from_pretrained(folder, trust_remote_code=with_code)


@pytest.mark.parametrize(
    ("name", "fields", "tensor"),
    [
        ("clip", {"num_hidden_layers": 1}, "text_model.encoder.layers.1"),
        ("lotlip", {"num_hidden_layers": 1}, "text_model.layers.1"),
        ("lotlip", {"num_corner_tokens": 0}, "text_model.embeddings.corner_tokens"),
    ],
)
def test_weights_without_use_are_named(family_folders, tmp_path, name, fields, tensor, caplog):
    folder = shutil.copytree(family_folders(name), tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= fields
    (folder / "config.json").write_text(json.dumps(config))
    DualEncoder.from_pretrained(folder)
    pattern = rf"\d+ tensors of \S+ are not used by \w+, `{re.escape(tensor)}.*` first"
    assert re.search(pattern, caplog.text)


def add_to_weights(source: Path, folder: Path, tensor: str) -> None:
    """Copies a model to a folder, with one more tensor in its weights."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights[tensor] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("clip", "text_model.text_adapter.weight"),
        ("clip", "clip.text_model.text_adapter.weight"),
        ("lotlip", "visual_projection.weight"),
    ],
)
def test_an_unused_tensor_of_a_tower_or_projection_may_change_embeddings(
    family_folders, tmp_path, name, tensor, caplog
):
    add_to_weights(family_folders(name), tmp_path / name, tensor)
    DualEncoder.from_pretrained(tmp_path / name)
    assert f"`{tensor}` first: if its config.json is not that of these weights" in caplog.text


def test_a_head_for_another_task_changes_no_embedding(family_folders, tmp_path, caplog):
    add_to_weights(family_folders("clip"), tmp_path / "clip", "class_head.dense0.weight")
    DualEncoder.from_pretrained(tmp_path / "clip")
    assert "are of no part of CLIPModel, `class_head.dense0.weight` first" in caplog.text
    assert "embeds otherwise" not in caplog.text


@pytest.mark.parametrize("buffer", ["position_ids", "token_type_ids"])
def test_a_buffer_that_older_code_saved_is_no_unused_weight(family_folders, tmp_path, buffer, caplog):
    add_to_weights(family_folders("clip"), tmp_path / "clip", f"text_model.embeddings.{buffer}")
    DualEncoder.from_pretrained(tmp_path / "clip")
    assert "tensors of" not in caplog.text


def test_weights_of_another_shape_than_the_configuration_has_are_refused(family_folders, tmp_path):
    folder = shutil.copytree(family_folders("lotlip"), tmp_path / "lotlip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_corner_tokens"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"corner_tokens` is of shape \(2, 32\) in its weights, and of \(1, 32\) by"):
        DualEncoder.from_pretrained(folder)


def test_several_models_are_looked_for_before_the_first_is_loaded(family_folders, tmp_path):
    folder = str(family_folders("lotlip"))
    assert find_models([folder, folder]) == [folder]
    with pytest.raises(ValueError, match=f"path {tmp_path}/nowhere` cannot be used: there is no such"):
        find_models([folder, f"{tmp_path}/nowhere"])
    with pytest.raises(ValueError, match=f"`--start {tmp_path}` cannot be used: it holds none of"):
        find_models([folder, str(tmp_path)], argument="start")


def test_settings_tell_encoders_apart(family_folders):
    folder = family_folders("lotlip")
    settings = load(folder).settings()
    assert load(folder).settings() == settings
    assert DualEncoder.from_pretrained(folder, device="cpu", dtype="bfloat16").settings() != settings
    assert DualEncoder.from_pretrained(folder, device="cpu", truncate_dim=8).settings() != settings
    assert load(family_folders("lit")).settings() != settings


def test_a_model_of_texts_alone_and_a_tokenizer_are_refused(family_folders):
    encoder = load(family_folders("clip"))
    text_model = CLIPTextModel(encoder.model.config.text_config)
    with pytest.raises(ValueError, match="a CLIPTextModel has not both: give a dual encoder"):
        DualEncoder(text_model, encoder.processor)
    with pytest.raises(ValueError, match="`processor` must have a `tokenizer` and an `image_processor`"):
        DualEncoder(encoder.model, encoder.processor.tokenizer)
