"""Progress bars and tables in a terminal, a log file and a pipe."""

import sys

import pytest

from modeling_lotlip.utils.terminal import LogLines, print_tables, printable, progress_bar, quote, without_stop


TABLE = "| model | R@1 |\n| --- | --- |\n| demo | 74.6 |"


def test_a_bar_in_a_log_file_is_a_line_every_ten_seconds(capsys):
    now = [0.0]
    bar = progress_bar(range(110), desc="Steps", unit=" steps")
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = 0.0
    for _ in bar:
        now[0] += 0.5
    lines = capsys.readouterr().err.splitlines()
    # at the start, every 20 steps, at the end
    assert [int(line.split("|")[2].split("/")[0]) for line in lines] == [0, 20, 40, 60, 80, 100, 110]
    assert all(line.startswith("Steps:") and line == line.strip() for line in lines)


def test_a_table_is_drawn_in_a_terminal_and_markdown_elsewhere(monkeypatch, capsys):
    print_tables(TABLE)
    assert capsys.readouterr().out == TABLE + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_tables(TABLE)
    drawn = capsys.readouterr().out
    assert "| --- |" not in drawn
    assert "model" in drawn
    assert "74.6" in drawn


def test_control_codes_do_not_reach_the_terminal():
    assert printable("Café 日本\n\ttab \x1b]0;title\x07\x9b2J \udcff") == (
        "Café 日本\\n\\ttab \\x1b]0;title\\x07\\x9b2J \\udcff"
    )


@pytest.mark.parametrize("end", ["", ".", "...", ".\n"])
def test_an_error_goes_on_within_a_sentence(end):
    assert f"{without_stop(OSError('the disk is full' + end))}. Make room." == "the disk is full. Make room."


@pytest.mark.parametrize(
    ("platform", "path", "expected"),
    [
        ("linux", "/photos/my boats", "'/photos/my boats'"),
        ("win32", r"C:\photos\my boats", r'"C:\photos\my boats"'),
        ("win32", r"C:\photos", r"C:\photos"),
    ],
)
def test_a_path_in_a_message_can_be_typed_on_its_system(platform, path, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert quote(path) == expected


def test_a_log_file_has_no_blank_lines(capsys):
    lines = LogLines(sys.stderr)
    assert lines.write("\r  10 %  ") == 9
    assert lines.write(" \n") == 2
    assert capsys.readouterr().err == "10 %\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_a_bar_that_is_drawn_over(monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with progress_bar(total=1) as bar:
        assert (bar.mininterval < 1) == is_terminal
