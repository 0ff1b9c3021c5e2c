"""Text files that are read."""

import pytest

from modeling_lotlip.utils.files import read_lines


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
