# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The tables of speeds on the pages are those that the benchmarks wrote."""

import runpy

import pytest

from tests.conftest import ROOT


fill = runpy.run_path(str(ROOT / "docs/measured.py"))["fill"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_measurements(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, ROOT / "docs" / "measured") == text, "run `python docs/measured.py`"


def test_a_block_is_replaced_by_the_table_of_its_variants(tmp_path):
    (tmp_path / "embed.json").write_text(
        '{"machine": {"processor": "P", "instructions": "AVX512", "threads": 2, "torch": "2.13", "date": "D",'
        ' "commit": "C"}, "tables": [{"title": "8 images", "rows": {"original": {"median": 2, "ratio": 1},'
        ' "float32": {"median": 1.004, "ratio": 1.99}}}]}'
    )
    page = "a\n<!-- measured: embed original float32 none -->\nold\n<!-- /measured -->\nb"
    filled = fill(page, tmp_path)
    assert "| 8 images | 2.00 s | 1.00 s (1.99 x) |  |" in filled and "old" not in filled
    assert "`embed.py`: P, AVX512, 2 threads, torch 2.13, D, commit C." in filled
    assert fill(filled, tmp_path) == filled and fill(page, tmp_path / "nowhere") == page


def test_recalls_are_means_over_seeds_with_their_range(tmp_path):
    (tmp_path / "other.json").write_text(
        '{"data": "scenes", "seeds": [0, 1], "steps": 5, "torch": "2.13", "date": "D", "commit": "C",'
        ' "recalls": [{"model": "CLIP", "trained": "short", "long_t2i_recall@1": [1.0, 2.5]}]}'
    )
    filled = fill("<!-- measured: other -->\n<!-- /measured -->", tmp_path)
    assert "| model | trained on | long T2I R@1 |" in filled and "| CLIP | short | 1.8 (1.0-2.5) |" in filled
