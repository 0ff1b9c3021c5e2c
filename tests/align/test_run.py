"""What is said of the data that heads are trained on, and the model that they become part of."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from modeling_lotlip.align import run
from modeling_lotlip.align.arguments import AlignArguments
from modeling_lotlip.align.features import Features
from modeling_lotlip.align.heads import HeadSettings, train_heads
from modeling_lotlip.align.run import FEW_ROWS, embed_features, load_splits, make_settings, warn_of_counts
from tests.helpers.data_files import write_lines


NOTHING = torch.zeros(0, 3)
ALL_GOOD = {
    "rows": 900,
    "num_captions": 950,
    "unreadable_images": 0,
    "images_without_caption": 0,
    "images_without_long_caption": 0,
    "truncated_captions": 0,
}
NAMES = {"text_model_name_or_path": "text", "vision_model_name_or_path": "vision", "output_dir": "out"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unreadable_images", "1 of 900 images cannot be read, and are left out."),
        ("images_without_caption", "1 images have no caption and are left out."),
        ("images_without_long_caption", f"1 of {FEW_ROWS} images have no long caption."),
        (
            "truncated_captions",
            "1 of 950 captions are longer than the 16 tokens that the text model reads, and are cut off.",
        ),
    ],
)
def test_only_what_is_left_out_or_cut_off_is_warned_of(name, message, caplog):
    counts = ALL_GOOD | {name: 1}
    warn_of_counts(Features(torch.zeros(FEW_ROWS, 1), NOTHING, NOTHING, counts), max_length=16)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [message]


@pytest.mark.parametrize(("num_images", "are_few"), [(FEW_ROWS - 1, True), (FEW_ROWS, False)])
def test_few_images_are_warned_of(num_images, are_few, caplog):
    warn_of_counts(Features(torch.zeros(num_images, 1), NOTHING, NOTHING, ALL_GOOD), max_length=16)
    assert (f"{num_images} images are few" in caplog.text) == are_few


def test_the_settings_of_heads_are_those_that_were_asked_for():
    assert make_settings(AlignArguments(**NAMES)) == HeadSettings()
    expected = HeadSettings(
        head="mlp",
        keep="text",
        captions=("long",),
        dropout=0.4,
        batch_size=7,
        learning_rate=0.5,
        weight_decay=0.6,
        num_epochs=8,
        seed=9,
    )
    args = AlignArguments(
        **NAMES,
        head="mlp",
        keep="text",
        captions=["long"],
        dropout=0.4,
        per_device_train_batch_size=7,
        learning_rate=0.5,
        weight_decay=0.6,
        num_train_epochs=8,
        seed=9,
    )
    assert make_settings(args) == expected
    assert make_settings(AlignArguments(**NAMES, head="linear", projection_dim=5)).projection_dim == 5
    assert make_settings(AlignArguments(**NAMES, head="linear")).head == "linear"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "linear", "dropout": 0.1}, "--dropout has no effect with --head linear"),
        ({"dropout": 0.1}, "--dropout has no effect with linear heads, the default: add --head mlp"),
        ({"key_column": "id"}, "--key_column has no effect without --caption_files"),
        ({"streaming": True}, "--streaming is not for `lotlip align`"),
        ({"per_device_train_batch_size": 1}, "--per_device_train_batch_size must be at least 2"),
        ({"max_length": 2}, "--max_length must be at least 3"),
        ({"dropout": 1.5}, "--dropout must be less than 1"),
        ({"projection_dim": 0}, "--projection_dim must be at least 1"),
        ({"keep": "text", "projection_dim": 5}, "--projection_dim excludes --keep"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlignArguments(**NAMES, **options)


@pytest.mark.parametrize(
    ("train_split", "eval_split", "num_shared"),
    [("train[:6]", "train[6:]", 0), ("train[:6]", "train[4:]", 2), ("train+train[:2]", "train[9:]", 1)],
)
def test_rows_of_both_splits_are_counted(tmp_path, caplog, train_split, eval_split, num_shared):
    file = write_lines(tmp_path / "rows.jsonl", [{"image": f"{index}.png"} for index in range(10)])
    args = AlignArguments(**NAMES, dataset_name=file, train_split=train_split, eval_split=eval_split)
    training_data, evaluation_data, found = load_splits(args)
    assert found == num_shared
    assert len(training_data) == (12 if "+" in train_split else 6)
    assert len(evaluation_data) == 10 - int(eval_split[6])
    warning = f"{num_shared} rows of `--eval_split {eval_split}` are trained on"
    assert (warning in caplog.text) == (num_shared > 0)


def test_captions_that_were_cut_off_are_counted_by_their_length():
    heads = train_heads(make_features(), dataclasses.replace(HeadSettings(), num_epochs=1)).heads
    embedded = embed_features(heads, make_features())
    assert {modality: captions.num_truncated for modality, captions in embedded.captions.items()} == {
        "short": 1,
        "long": 2,
    }
    assert embedded.num_unreadable == 3
    assert embedded.captions["long"].texts == ["e", "f", "g", "h"]


def make_features() -> Features:
    """
    Four images with two captions each. One short and two long ones are cut off.
    """
    generator = torch.Generator().manual_seed(0)
    captions = []
    for image in range(4):
        captions += [[image, image, 0], [image, 4 + image, 1]]
    return Features(
        torch.randn(4, 5, generator=generator),
        torch.randn(8, 5, generator=generator),
        torch.tensor(captions),
        {"unreadable_images": 3},
        list("abcdefgh"),
        torch.tensor([False, True, False, False, False, True, False, True]),
    )


def test_several_processes_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "join_processes", lambda device: SimpleNamespace(num_processes=2))
    args = AlignArguments(
        text_model_name_or_path="nosuch", vision_model_name_or_path="nosuch", output_dir=tmp_path / "out"
    )
    with pytest.raises(ValueError, match="`lotlip align` runs in one process"):
        run.align_and_save(args)
    assert not (tmp_path / "out").exists()
