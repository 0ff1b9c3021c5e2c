"""Text files that are read, and results that are written."""

import csv
import hashlib
import json
import os

import pytest

from modeling_lotlip.utils import files
from modeling_lotlip.utils.files import (
    are_one_file,
    hash_file,
    is_same_path,
    public_name,
    read_lines,
    write_csv,
    write_results,
)


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


def test_the_disk_says_which_names_are_one_file(tmp_path):
    (tmp_path / "a").touch()
    distinguishes = not (tmp_path / "A").exists()
    assert are_one_file("b", "B", tmp_path / "not" / "there") is not distinguishes
    assert are_one_file("b", "b", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_block_of_a_file_counts_in_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BYTES_AT_ONCE", 4)
    (tmp_path / "file").write_bytes(b"0123456789")
    assert hash_file(tmp_path / "file") == hashlib.blake2b(b"0123456789", digest_size=16).hexdigest()


def test_rows_of_csv_have_the_columns_of_all(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"model": "a", "score": 1}, {"model": "b, c", "pairs": [{"count": 2}]}])
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["model", "score", "pairs"], ["a", "1", ""], ["b, c", "", '[{"count": 2}]']]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", '{\n  "score": 1\n}\n'),
        ("results.csv", "score\r\n1\r\n"),
        ("results.md", "| score |\n"),
    ],
)
def test_results_are_written_in_the_form_of_the_ending(tmp_path, name, content):
    write_results(tmp_path / "new" / name, {"score": 1}, "| score |\n\n")
    assert (tmp_path / "new" / name).read_bytes().decode() == content


def test_csv_has_the_rows_that_are_given_in_place_of_the_results(tmp_path):
    write_results(tmp_path / "results.csv", {"score": 1}, "", rows=[{"query": "a"}, {"query": "b"}])
    assert (tmp_path / "results.csv").read_text().split() == ["query", "a", "b"]
    write_results(tmp_path / "results.csv", {"score": 1}, "", rows=[])
    assert (tmp_path / "results.csv").read_text().split() == []


def test_results_of_another_ending_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"results.txt must end in .json, .csv or .md"):
        write_results(tmp_path / "results.txt", {}, "")
    assert list(tmp_path.iterdir()) == []


def test_results_that_json_cannot_write_leave_the_earlier_ones(tmp_path):
    write_results(tmp_path / "results.json", {"score": 1}, "")
    with pytest.raises(TypeError):
        write_results(tmp_path / "results.json", {"score": object()}, "")
    assert json.loads((tmp_path / "results.json").read_text()) == {"score": 1}


def test_a_folder_is_named_without_those_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    assert public_name(str(tmp_path / "model")) == "model"
    assert public_name(".") == "model"
    assert public_name("someone/model") == "someone/model"


@pytest.mark.parametrize(("content", "number"), [("boat\n\ncar\n", 2), ("\nboat\n", 1), ("boat\n \n\ncar", 2)])
def test_a_blank_line_among_numbered_ones_is_an_error(tmp_path, content, number):
    path = tmp_path / "names.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"--class_names_file {path} has nothing in line {number}"):
        read_lines(path, "class_names_file", are_numbered=True)


def test_blank_lines_at_the_end_change_no_number(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("boat\ncar\n\n \n")
    assert read_lines(path, "class_names_file", are_numbered=True) == ["boat", "car"]


def test_results_are_written_to_the_file_that_a_link_names(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "results.json").touch()
    (tmp_path / "results.json").symlink_to(tmp_path / "elsewhere" / "results.json")
    write_results(tmp_path / "results.json", {"score": 1}, "")
    assert (tmp_path / "results.json").is_symlink()
    assert json.loads((tmp_path / "elsewhere" / "results.json").read_text()) == {"score": 1}


def test_only_line_breaks_end_lines(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("a red boat\u2028by the sea\r\na\x0chouse\r\n".encode())
    assert read_lines(path, "texts_file") == ["a red boat\u2028by the sea", "a\x0chouse"]
