"""Trainers of other libraries read captions as training and evaluation do."""

from random import Random

import pytest
from datasets import Dataset

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.collator import CaptionCollator, draw_captions, with_captions
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes


LONG = "A red boat.The sea is blue."


def make_rows(**columns) -> Dataset:
    return Dataset.from_dict({"image": load_scenes(len(columns["caption"]))["image"], **columns})


@pytest.mark.parametrize("long", [LONG, [LONG], [" ", LONG]])
@pytest.mark.parametrize("short", ["a boat", ["a boat"]])
def test_a_caption_is_a_string_or_a_list(model_dir, short, long):
    rows = make_rows(caption=[short, short], long_captions=[long, long])
    reader = RowReader(rows.column_names, CaptionArguments())
    rows = with_captions(rows, reader)
    assert draw_captions(reader, rows[0]) == ("a boat", "A red boat. The sea is blue")
    # as evaluation reads them
    _, *items = reader(0, rows[0])
    texts = [item.content for item in items]
    assert texts == ["a boat", "A red boat. The sea is blue"]
    processor = LotlipProcessor.from_pretrained(model_dir)
    batch = CaptionCollator(processor, reader)(list(rows))
    expected = processor.tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["input_ids"][0].equal(expected["input_ids"])
    assert batch["attention_mask"][1].equal(expected["attention_mask"])
    images = [reader.read_image(row) for row in rows]
    pixels = processor.image_processor(images, return_tensors="pt")
    assert batch["pixel_values"].equal(pixels["pixel_values"])
    assert LotlipModel.from_pretrained(model_dir)(**batch).loss > 0


def test_several_captions_are_drawn_and_absent_ones_masked(model_dir, caplog):
    rows = make_rows(caption=[["a", "b", None], [], ["c"]], long_captions=[None, " ", "..."])
    reader = RowReader(rows.column_names, CaptionArguments())
    kept = with_captions(rows, reader)
    assert len(kept) == 2
    assert "1 of 3 images have no caption and are left out" in caplog.text
    assert {draw_captions(reader, kept[0]) for _ in range(40)} == {("a", ""), ("b", "")}
    sampled = [[draw_captions(reader, kept[0], own) for _ in range(40)] for own in (Random(0), Random(0))]
    assert sampled[0] == sampled[1]
    collator = CaptionCollator(LotlipProcessor.from_pretrained(model_dir), reader)
    mask = collator(list(kept))["attention_mask"]
    assert mask[:, 0].any(dim=-1).all()
    assert not mask[:, 1].any()
    with pytest.raises(ValueError, match="2 of 2 images have no caption: name the columns with `--caption_column`"):
        with_captions(rows.select([1, 1]), reader)
    with pytest.raises(ValueError, match="`--streaming` is for `lotlip train`"):
        with_captions(rows.to_iterable_dataset(), reader)
