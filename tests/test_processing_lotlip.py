"""The processor: nothing but its two parts."""

import json

import PIL.Image
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoProcessor

from modeling_lotlip import (
    LotlipImageProcessor,
    LotlipProcessor,
    LotlipTokenizer,
    LotlipVisionConfig,
    LotlipVisionModel,
)
from tests.conftest import SPECIAL_TOKENS, TINY_TOWER


WORDS = [*SPECIAL_TOKENS, "a", "red", "car", "street"]


@pytest.fixture
def processor() -> LotlipProcessor:
    tokenizer = LotlipTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    return LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)


def test_the_processor_gives_what_its_parts_give(processor):
    images = [PIL.Image.new("RGB", (50, 40), "red"), PIL.Image.new("L", (40, 50))]
    texts = ["A red car. A street", "a car"]

    inputs = processor(images=images, text=texts, return_tensors="pt")

    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    pixels = processor.image_processor(images, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], pixels["pixel_values"])
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 7, 3, 5, 8, 3], [2, 5, 7, 3, 0, 0, 0, 0]]
    assert inputs["attention_mask"].sum(1).tolist() == [8, 4]
    assert processor(text=texts, padding=False)["input_ids"][1] == [2, 5, 7, 3]
    padded = processor(text="a car", padding="max_length", return_tensors="pt")
    assert padded["input_ids"].shape == (1, 126)
    decoded = processor.batch_decode(inputs["input_ids"], skip_special_tokens=True)
    assert decoded == ["a red car a street", "a car"]


def test_no_texts_are_an_error(processor):
    with pytest.raises(ValueError, match="`text` is empty"):
        processor(text=[], return_tensors="pt")


def test_a_saved_processor_forgets_its_last_call(processor, tmp_path):
    processor(text=["a " * 500, "a"], max_length=10, truncation=True, padding="max_length")
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert [len(ids) for ids in loaded(text=["a " * 500, "a"], padding=False)["input_ids"]] == [126, 3]
    loaded.tokenizer.model_max_length = 200
    assert len(loaded(text="a " * 500)["input_ids"]) == 200
    assert len(loaded(text="a " * 500, truncation=False)["input_ids"]) == 502
    # a runtime that reads tokenizer.json alone truncates too, and pads nothing
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [len(raw.encode(text).ids) for text in ("a " * 500, "a")] == [126, 3]


def test_the_length_and_padding_that_a_tokenizer_is_made_with_hold(processor, tmp_path):
    texts = ["a red car on a red street", "a"]

    def lengths(processor, **kwargs):
        return [len(ids) for ids in processor(text=texts, **kwargs)["input_ids"]]

    processor.tokenizer.save_pretrained(tmp_path / "plain")
    made = LotlipTokenizer.from_pretrained(tmp_path / "plain", max_length=6, padding="max_length")
    processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=made)
    assert lengths(processor) == [6, 6]
    assert lengths(processor, max_length=4, padding=False, pad_to_multiple_of=8, truncation=True) == [4, 3]
    assert lengths(processor) == [6, 6]
    assert lengths(processor, max_length=5, truncation=True, pad_to_multiple_of=5) == [5, 5]
    processor.save_pretrained(tmp_path / "made")
    for loaded in (
        AutoProcessor.from_pretrained(tmp_path / "made"),
        LotlipProcessor.from_pretrained(tmp_path / "made"),
    ):
        assert lengths(loaded) == [6, 6]
    # a BERT's is none of LoTLIP's
    config = json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "BertTokenizer"
    (tmp_path / "made" / "tokenizer_config.json").write_text(json.dumps(config))
    bert = LotlipTokenizer.from_pretrained(tmp_path / "made", padding=True)
    assert lengths(LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=bert)) == [9, 9]


def test_an_image_tower_saved_with_its_image_processor_is_found(tmp_path):
    LotlipVisionModel(LotlipVisionConfig(**TINY_TOWER)).save_pretrained(tmp_path)
    LotlipImageProcessor().save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is LotlipImageProcessor
