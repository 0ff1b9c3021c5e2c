"""`lotlip convert`: there and back, and what is refused."""

import pytest
import torch

import lotlip
from tests.test_convert import make_tokenizer_folder, original_checkpoint, original_towers


@pytest.fixture
def arguments(tmp_path):
    """A checkpoint of the original, as the command takes it."""
    torch.save(original_checkpoint(*original_towers()), tmp_path / "model.pt")
    return [str(tmp_path / "model.pt"), "--tokenizer_path", str(make_tokenizer_folder(tmp_path / "bert"))]


def test_mistakes_are_one_line(arguments, tmp_path, capsys):
    converted = tmp_path / "converted"
    assert lotlip.main(["convert", arguments[0], str(converted), *arguments[1:]]) == 0
    capsys.readouterr()
    for argv, words in (
        (arguments, "Give an output folder"),
        ([str(tmp_path / "none.pt"), str(tmp_path / "folder")], "There is no file"),
        ([str(converted), str(tmp_path / "folder")], "give `--to_original`"),
        ([str(tmp_path / "bert"), str(tmp_path / "folder")], "it has no `model.pt`"),
    ):
        assert lotlip.main(["convert", *argv]) == 2
        error = capsys.readouterr().err
        assert words in error and error.startswith("lotlip convert: error: ") and error.count("\n") == 1
