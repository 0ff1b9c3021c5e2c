# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one style of the plots in the documentation: SVG files whose colours follow the reader's light or dark mode."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


# Names of the colours, with their values in light and in dark mode
COLORS = {
    "paper": ("#ffffff", "#1b1f27"),
    "ink": ("#23272f", "#e4e7ec"),
    "faint": ("#6b7280", "#9aa3b2"),
    "grid": ("#e1e5eb", "#343a46"),
    "first": ("#5470c6", "#7d95e6"),
    "second": ("#e39124", "#eda94c"),
    "third": ("#3a9d6e", "#55b98a"),
    "fourth": ("#b5546f", "#d98098"),
}
LIGHT = {name: light for name, (light, _) in COLORS.items()}
# For the series of a plot, in their order
SERIES = [LIGHT[name] for name in ("first", "second", "third", "fourth")]

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": LIGHT["faint"],
    "axes.facecolor": LIGHT["paper"],
    "axes.grid": True,
    "axes.labelcolor": LIGHT["ink"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlesize": 11,
    "figure.facecolor": LIGHT["paper"],
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": LIGHT["grid"],
    "legend.frameon": False,
    "savefig.facecolor": LIGHT["paper"],
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "lotlip",  # the same plot is the same file
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["faint"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.color": LIGHT["faint"],
    "ytick.labelcolor": LIGHT["ink"],
}


@contextmanager
def svg_plot(
    path: str | os.PathLike, description: str, *, num_columns: int = 1, width: float = 7.2, height: float = 3.6
) -> Iterator[list[Axes]]:
    """
    Plots in the style of the documentation, written as an SVG file when the block ends. Every colour of `COLORS`
    follows the reader's light or dark mode, so draw in `SERIES` and `LIGHT`.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        description (`str`):
            What the plot shows, for readers who cannot see it.
        num_columns (`int`, *optional*, defaults to 1):
            Number of plots side by side.
        width (`float`, *optional*, defaults to 7.2):
            In inches, of 96 pixels each in a browser.
        height (`float`, *optional*, defaults to 3.6):
            In inches.

    Returns:
        A context manager that gives the plots, a `list[Axes]`, from left to right.

    Example:

    ```python
    >>> from modeling_lotlip.benchmarking.plots import SERIES, svg_plot

    >>> with svg_plot("speed.svg", "Two bars: float32 8.9, bfloat16 18.6.") as (axes,):
    ...     bars = axes.barh(["float32", "bfloat16"], [8.9, 18.6], color=SERIES[:2])
    ```"""
    content = io.StringIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield list(figure.subplots(1, num_columns, squeeze=False)[0])
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Description": description})
    svg = content.getvalue()
    for name, color in LIGHT.items():
        svg = re.sub(color, f"var(--{name})", svg, flags=re.IGNORECASE)
    light, dark = (" ".join(f"--{name}: {values[mode]};" for name, values in COLORS.items()) for mode in (0, 1))
    style = f"<style>svg {{ {light} }}\n@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    Path(path).write_text(re.sub(r"(<svg [^>]*>)", rf"\1\n{style}", svg, count=1), encoding="utf-8")
