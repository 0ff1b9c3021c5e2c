# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown: of results, reports and model cards."""


def format_markdown(titles: list[str], rows: list[list[object]]) -> str:
    """Formats a Markdown table: see [`escape_cell`]."""
    lines = []
    for cells in (titles, ["---"] * len(titles), *rows):
        lines.append(f"| {' | '.join(map(escape_cell, cells))} |")
    return "\n".join(lines)


def escape_cell(content: object) -> str:
    """Writes the content of a cell: a `|` would begin another one, and a line break would end the table."""
    return " ".join(str(content).splitlines()).replace("|", r"\|")
