# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The plots of the documentation: they show the numbers of its tables, in light and in dark mode."""

import re
import runpy
from xml.etree import ElementTree

import pytest

from tests.helpers.browser import ROOT


DRAWN = runpy.run_path(str(ROOT / "docs/plots.py"))
LIGHT, SERIES, svg_plot = (DRAWN[name] for name in ("LIGHT", "SERIES", "svg_plot"))
IMAGES = ROOT / "docs/images"


def texts(path) -> list[str]:
    """Everything that is written in an SVG file, its description included."""
    return [element.text for element in ElementTree.parse(path).iter() if (element.text or "").strip()]


@pytest.mark.parametrize("name", DRAWN["PLOTS"])
def test_plots_are_those_of_the_tables(name, tmp_path):
    DRAWN["PLOTS"][name](tmp_path)
    assert texts(tmp_path / f"{name}.svg") == texts(IMAGES / f"{name}.svg"), "run `python docs/plots.py`"
    pages = [(ROOT / "docs" / page).read_text() for page in ("reproduce.md",)]
    assert sum(f"](images/{name}.svg)" in page for page in pages) == 1


def test_numbers_are_read_from_the_right_cells():
    assert DRAWN["mean_and_deviation"]("47.1 ± 11.9") == (47.1, 11.9)
    with pytest.raises(ValueError, match="performance.md has no table 0 under 'Elsewhere'"):
        DRAWN["read_table"]("performance.md", "Elsewhere", 0)


def test_every_colour_follows_the_mode(tmp_path):
    with svg_plot(tmp_path / "plot.svg", "Two & more bars.", num_columns=2) as (left, right):
        left.bar(["a", "b"], [1, 2], color=SERIES[:2], label="bars")
        left.axvline(1, color=LIGHT["ink"])
        left.legend()
        left.set_title("title")
        right.annotate("text", (0.5, 0.5))
    content = (tmp_path / "plot.svg").read_text()
    style = re.search(r"<style>svg .*?</style>", content, re.DOTALL)[0]
    assert "@media (prefers-color-scheme: dark)" in style
    drawn = content.replace(style, "")
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawn)
    names = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"paper", "ink", "first", "second"} <= names and all(f"--{name}:" in style for name in names)
    # a text without a colour of its own would be black in dark mode, too
    assert all("var(--ink)" in text for text in re.findall(r"<text [^>]*>", drawn))
    assert "Two & more bars." in texts(tmp_path / "plot.svg")


def test_the_same_plot_is_the_same_file(tmp_path):
    for number in range(2):
        with svg_plot(tmp_path / f"{number}.svg", "A line.") as (axes,):
            axes.plot([1, 2], [2, 1], "o-")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
