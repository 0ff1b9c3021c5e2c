# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Writes measurements into the pages: between `<!-- measured: NAME VARIANT ... -->` and `<!-- /measured -->` stands the
table of these variants from `docs/measured/NAME.json`, which the benchmark NAME.py wrote. The first is the baseline.

    python examples/benchmarks/embed.py --output_file docs/measured/embed.json
    python docs/measured.py
"""

import json
import re
import shlex
from pathlib import Path


ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- measured: (.+?) -->\n).*?(<!-- /measured -->)", re.DOTALL)


def format_cell(rows: dict[str, dict], name: str, baseline: str) -> str:
    """The median seconds of a variant, and how many times the baseline's speed it has."""
    if name not in rows:
        return ""
    row = rows[name]
    return f"{row['median']:.2f} s" if name == baseline else f"{row['median']:.2f} s ({row['ratio']:.2f} x)"


def format_table(results: dict, name: str, variants: list[str]) -> str:
    """A row for each workload, a column for each variant, and where it was measured."""
    lines = [f"| work | {' | '.join(variants)} |", f"|{' --- |' * (1 + len(variants))}"]
    for table in results["tables"]:
        cells = [format_cell(table["rows"], variant, variants[0]) for variant in variants]
        lines.append(f"| {table['title']} | {' | '.join(cells)} |")
    where = "{processor}, {instructions}, {threads} threads, torch {torch}, {date}, commit {commit}"
    lines += ["", f"`{name}.py`: {where.format(**results['machine'])}.", ""]
    return "\n".join(lines)


def fill(text: str, folder: Path) -> str:
    """A page with the tables of its blocks; a block whose measurement is not there stays as it is."""

    def replace(match: re.Match) -> str:
        name, *variants = shlex.split(match[2])
        file = folder / f"{name}.json"
        if not file.is_file():
            return match[0]
        return match[1] + format_table(json.loads(file.read_text(encoding="utf-8")), name, variants) + match[3]

    return BLOCK.sub(replace, text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = fill(before, ROOT / "docs" / "measured")
        if after != before:
            page.write_text(after, encoding="utf-8")
