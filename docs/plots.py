# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Draws the plots of the documentation from the numbers of `docs/measured/recipes.json`. After a change of these:

    python docs/plots.py
"""

import argparse
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


DOCS = Path(__file__).parent

# Means and deviations over seeds: by the captions that are trained on, by what is on the x axis, and by tokens kept
MEASURED = json.loads((DOCS / "measured" / "recipes.json").read_text(encoding="utf-8"))
METRICS = ("long T2I R@1", "short T2I R@1")


# The style: SVG files whose colors follow the reader's light or dark mode

# Names of the colors, with their values in light and in dark mode
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
    Plots in the style of the documentation, written as an SVG file when the block ends. Every color of `COLORS`
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
    """
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


def describe_tables(tables: dict[str, list[dict]]) -> str:
    """Writes the numbers of a plot as a text, for those who do not see it."""
    descriptions = []
    for title, rows in tables.items():
        for row in rows:
            numbers = [f"{metric} {row[metric][0]:.1f} ± {row[metric][1]:.1f}" for metric in METRICS]
            descriptions.append(f"{title}, {row['setting']}: {', '.join(numbers)}")
    return "; ".join(descriptions)


def draw_recipes(output_dir: Path) -> None:
    """Recall at 1 by the captions that are trained on, with the deviation over the seeds."""
    tables = MEASURED["recipes"]
    described = describe_tables(tables)
    with svg_plot(
        output_dir / "recipes.svg", f"Recall by recipe. {described}.", num_columns=2, width=9.6, height=3.4
    ) as plots:
        for axes, (title, rows) in zip(plots, tables.items()):
            for offset, metric, color in ((-0.2, METRICS[0], SERIES[0]), (0.2, METRICS[1], SERIES[1])):
                means, deviations = zip(*(row[metric] for row in rows))
                places = [place + offset for place in range(len(rows))]
                axes.barh(places, means, 0.36, label=metric.removesuffix(" R@1"), color=color)
                axes.errorbar(means, places, xerr=deviations, fmt="none", ecolor=LIGHT["ink"], capsize=2, elinewidth=1)
            axes.set_yticks(range(len(rows)), [row["setting"].replace(", ", ",\n") for row in rows])
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_title(title)
            axes.set_xlabel("recall at 1 in %")
        plots[0].legend(loc="upper right")


def draw_curves(output_dir: Path) -> None:
    """Recall at 1 on drawn scenes by corner tokens, sub-captions and the token limit, with deviations."""
    tables = {}
    for title, rows in MEASURED["curves"].items():
        tables[title] = [row for row in rows if "mask" not in row["setting"]]
    described = describe_tables(tables)
    with svg_plot(
        output_dir / "curves.svg", f"Recall on drawn scenes. {described}.", num_columns=3, width=9.6, height=3
    ) as plots:
        for axes, (title, rows) in zip(plots, tables.items()):
            for metric, color in zip(METRICS, SERIES):
                means, deviations = zip(*(row[metric] for row in rows))
                label = metric.removesuffix(" R@1")
                axes.errorbar(range(len(rows)), means, deviations, marker="o", capsize=3, color=color, label=label)
            axes.set_xticks(range(len(rows)), [row["setting"] for row in rows])
            axes.set_ylim(0, 103)
            axes.set_xlabel(title)
        plots[0].set_ylabel("recall at 1 in %")
        plots[2].legend(loc="lower right")


def draw_kept(output_dir: Path) -> None:
    """Recall at 1 on photographs by the tokens of long texts that are kept."""
    curves = {row["setting"]: row["long T2I R@1"] for row in MEASURED["tokens_kept"]}
    described = []
    for setting, curve in curves.items():
        recalls = [f"{recall:.1f}" for recall in curve.values()]
        described.append(f"{setting} {', '.join(recalls)}")
    numbers = ", ".join(curves["short"])
    description = f"Long text-to-image recall at 1 with {numbers} tokens: {'; '.join(described)}."
    with svg_plot(output_dir / "tokens_kept.svg", description, height=3) as (axes,):
        for (setting, curve), marker, color in zip(curves.items(), "os^Dv", [*SERIES, LIGHT["faint"]]):
            tokens = [int(number) for number in curve]
            axes.plot(tokens, list(curve.values()), marker=marker, color=color, label=setting)
        axes.set_xlabel("tokens kept of a long text")
        axes.set_ylabel("T2I R@1 in %")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


PLOTS = {
    "recipes": draw_recipes,
    "curves": draw_curves,
    "tokens_kept": draw_kept,
}


def main() -> None:
    """Draws every plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=DOCS / "images", help="Where the plots go.")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for draw in PLOTS.values():
        draw(args.output_dir)


if __name__ == "__main__":
    main()
