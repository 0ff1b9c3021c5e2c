"""Tables in Markdown."""

import pytest
from markdown_it import MarkdownIt

from modeling_lotlip.utils.markdown import format_markdown


def read_cells(markdown: str) -> list[str]:
    """The cells of a table as a reader of Markdown shows them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    return [token.content for token in tokens if token.type == "inline"]


@pytest.mark.parametrize("content", ["a|b.jpg", "|", r"a\|b", "`a|b`"])
def test_a_bar_is_no_border_of_a_cell(content):
    table = format_markdown(["file", "score"], [[content, "1"], ["c.jpg", "2"]])
    assert len(read_cells(table)) == 6
    assert "\n".join(read_cells(table)[4:]) == "c.jpg\n2"
    assert "|" in read_cells(table)[2]


def test_a_line_break_does_not_end_a_table():
    table = format_markdown(["caption", "score"], [["a red boat\n\nat\rsea", "1"]])
    assert read_cells(table) == ["caption", "score", "a red boat  at sea", "1"]
