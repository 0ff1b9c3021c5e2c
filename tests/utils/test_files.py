"""Text files that are read."""

import os

import pytest

from modeling_lotlip.utils.files import is_same_path, read_lines


def test_lines_are_read_without_blanks_and_must_be_utf_8(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffboat \r\n\r\n  Schiff für alle\n".encode())
    assert read_lines(path, "class_names_file") == ["boat", "Schiff für alle"]
    for content in ("Schiff für".encode("latin-1"), "boat".encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"--class_names_file {path} is not UTF-8, at byte .*: save it as UTF-8"):
            read_lines(path, "class_names_file")
    with pytest.raises(ValueError, match=f"--texts_file {tmp_path / 'nothing'} cannot be read: No such file"):
        read_lines(tmp_path / "nothing", "texts_file")


def test_two_names_of_one_file_are_the_same_path(tmp_path):
    """As those in other capitals are on macOS."""
    (tmp_path / "photo.png").write_text("it")
    os.link(tmp_path / "photo.png", tmp_path / "PHOTO.PNG")
    assert is_same_path(tmp_path / "photo.png", tmp_path / "PHOTO.PNG")


def test_paths_that_are_not_there_are_compared_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_same_path("out", tmp_path / "out")
    assert not is_same_path("out", tmp_path)
