"""Loading data sets."""

import argparse

import pytest

from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_captions


def test_data_arguments_that_name_nothing(tmp_path):
    args = argparse.Namespace(
        dataset_name=None, dataset_config_name=None, data_dir="x", data_files=None, streaming=False,
        image_column="image", train_split="train",
    )  # fmt: skip
    with pytest.raises(ValueError, match="need `--dataset_name`"):
        load_split(args, "test")
    args.dataset_name, args.data_dir = str(tmp_path / "nothing"), None
    with pytest.raises((FileNotFoundError, ConnectionError)):
        load_split(args, "test")
    with pytest.raises(ValueError, match="'caption' must hold strings"):
        read_captions({"caption": 3}, "caption")
    assert read_captions({"caption": ["a", None, " "]}, "caption") == ["a"]
