# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Writes measurements into the pages: between `<!-- measured: NAME VARIANT ... -->` and `<!-- /measured -->` stands the
table of `docs/measured/NAME.json`. A benchmark's has a column for each variant, the first of which is the baseline, or
without variants all that was measured of each; behind `columns:` stand the measurements of a single table of all
sizes. That of `other_models.py` has these recalls of each model, or all. The block `published` has the table of
`examples/paper/published.json`, and `cost` what collections of several sizes cost. `align` has the tables of
`ALIGN_TABLES`, `near` that of `near.py`.

    python examples/benchmarks/embed.py --output_file docs/measured/embed.json
    python docs/measured.py
"""

import json
import re
import shlex
import statistics
from pathlib import Path


ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "examples" / "paper" / "published.json"
# The rows and columns of the published table
MODELS = {
    "openai/clip-vit-base-patch32": "CLIP ViT-B/32",
    "openai/clip-vit-base-patch16": "CLIP ViT-B/16",
    "BeichenZhang/LongCLIP-B": "Long-CLIP ViT-B/16",
    "weiwu-ww/LoTLIP-ViT-B-32-100M": "LoTLIP ViT-B/32",
    "weiwu-ww/LoTLIP-ViT-B-16-100M": "LoTLIP ViT-B/16",
}
BENCHMARKS = {"dci": "DCI", "iiw": "IIW", "sharegpt4v-10k": "ShareGPT4V-10k", "urban1k": "Urban1k"}
BLOCK = re.compile(r"(<!-- measured: (.+?) -->\n).*?(<!-- /measured -->)", re.DOTALL)


def format_cell(rows: dict[str, dict], name: str, baseline: str) -> str:
    """The median seconds of a variant, and how many times the baseline's speed it has."""
    if name not in rows:
        return ""
    row = rows[name]
    return f"{row['median']:.2f} s" if name == baseline else f"{row['median']:.2f} s ({row['ratio']:.2f} x)"


def format_number(value: float | str) -> str:
    """A number with three digits, or with all before the point; a text as it is."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_rows(table: dict) -> list[str]:
    """A row for each variant, a column for each number."""
    rows = table["rows"]
    names = dict.fromkeys(name for row in rows.values() for name, value in row.items() if not isinstance(value, dict))
    names = [name for name in names if name not in ("min", "max")]  # stand in the JSON alone
    titles = ["median, s" if name == "median" else name.replace("_", " ") for name in names]
    lines = [f"| {table['title']} | {' | '.join(titles)} |", f"|{' --- |' * (1 + len(names))}"]
    for variant, row in rows.items():
        cells = [format_number(row.get(name, "")) for name in names]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return [*lines, ""]


def format_columns(tables: list[dict], names: list[str]) -> list[str]:
    """One table of all tables, with a column for each of these measurements."""
    titles = [name.replace("_", " ") for name in names]
    lines = [f"| | | {' | '.join(titles)} |", f"|{' --- |' * (2 + len(names))}"]
    for table in tables:
        title = table["title"]
        for variant, row in table["rows"].items():
            cells = [format_number(row.get(name, "")) for name in names]
            lines.append(f"| {title} | {variant} | {' | '.join(cells)} |")
            title = ""  # stands in the first row
    return lines


def format_table(results: dict, name: str, variants: list[str]) -> str:
    """A column for each variant, or all numbers of each, and where it was measured."""
    if variants[:1] == ["columns:"]:
        lines = format_columns(results["tables"], variants[1:])
    elif variants:
        lines = [f"| work | {' | '.join(variants)} |", f"|{' --- |' * (1 + len(variants))}"]
        for table in results["tables"]:
            cells = [format_cell(table["rows"], variant, variants[0]) for variant in variants]
            lines.append(f"| {table['title']} | {' | '.join(cells)} |")
    else:
        lines = [line for table in results["tables"] for line in format_rows(table)][:-1]
    where = "{processor}, {instructions}, {threads} threads, torch {torch}, {date}, commit {commit}"
    lines += ["", f"`{name}.py`: {where.format(**results['machine'])}.", ""]
    return "\n".join(lines)


def format_over_seeds(values: list[float]) -> str:
    """The mean of a measurement over seeds, with its min and max if they differ."""
    mean = f"{statistics.fmean(values):.1f}"
    if min(values) == max(values):
        return mean
    return f"{mean} ({min(values):.1f}-{max(values):.1f})"


def format_recalls(results: dict, names: list[str]) -> str:
    """A row for each model and way of training: these recalls, or all, in %, the mean over seeds with min and max."""
    if not names:
        names = [name for name in results["recalls"][0] if name not in ("model", "trained", "curves")]
    titles = [
        re.sub("_(i2t|t2i)_", lambda match: f" {match[1].upper()} ", name).replace("recall", "R") for name in names
    ]
    lines = [f"| model | trained on | {' | '.join(titles)} |", f"|{' --- |' * (2 + len(names))}"]
    for row in results["recalls"]:
        cells = [format_over_seeds(row[name]) for name in names]
        lines.append(f"| {row['model']} | {row['trained']} | {' | '.join(cells)} |")
    where = "{data}, seeds {seeds}, {steps} steps, torch {torch}, {date}, commit {commit}"
    lines += ["", f"`other_models.py`: {where.format(**results)}.", ""]
    return "\n".join(lines)


# What near.py trained on, by the name of its results
NEAR = {
    "near": "both",
    "near_third": "both, short at a third",
    "near_long_alone": "long alone",
    "near_siglip": "both",
    "near_long_alone_lotlip": "long alone",
}
NEAR_METRICS = {
    "short_t2i_recall@1": "short T2I R@1",
    "zero_shot_top1": "zero-shot",
    "long_t2i_recall@1": "long T2I R@1",
    "long_mean_recall": "long, mean recall",
}


def format_near(folder: Path) -> str:
    """A row for each model and what near.py did to it, without the mixtures, mean over seeds with min and max."""
    lines = [f"| model | trained on | {' | '.join(NEAR_METRICS.values())} |", f"|{' --- |' * 6}"]
    measured = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in NEAR}
    families = [row["model"] for results in measured.values() for row in results["recalls"]]
    for family in dict.fromkeys(families):
        for name, title in NEAR.items():
            titles = {"after": title, "distilled": f"{title}, distilled"}
            for row in measured[name]["recalls"]:
                if row["model"] == family and row["trained"] in titles:
                    cells = [format_over_seeds(row[metric]) for metric in NEAR_METRICS]
                    lines.append(f"| {family} | {titles[row['trained']]} | {' | '.join(cells)} |")
    where = "drawn scenes, torch {torch}, {date}".format(**measured["near"])
    return "\n".join([*lines, "", f"`near.py`: {where}.", ""])


def format_gain(folder: Path) -> str:
    """A row for each model: short and long captions before and after, by the weight that is advised."""
    lines = ["| model | short T2I R@1 | long T2I R@1 | long, mean recall |", f"|{' --- |' * 4}"]
    rows = {}
    for name in ("near", "near_third", "near_siglip"):  # the later one replaces a model's row
        results = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for row in results["recalls"]:
            rows[row["model"], row["trained"]] = row
    for family in dict.fromkeys(model for model, _ in rows):
        cells = []
        for metric in ("short_t2i_recall@1", "long_t2i_recall@1", "long_mean_recall"):
            before = statistics.fmean(rows[family, "before"][metric])
            after = statistics.fmean(rows[family, "after"][metric])
            cells.append(f"{before:.1f}→{after:.1f}")
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def format_published() -> str:
    """Recall at 1, image to text / text to image, of the authors' repository; the highest of each column is bold."""
    rows = [row for row in json.loads(PUBLISHED.read_text(encoding="utf-8"))["retrieval"] if row["source"] != "paper"]
    recalls = {(row["model"], row["benchmark"]): (row["i2t"], row["t2i"]) for row in rows}
    highest = {name: [max(recalls[model, name][place] for model in MODELS) for place in (0, 1)] for name in BENCHMARKS}
    lines = [f"| model | {' | '.join(BENCHMARKS.values())} |", f"|{' --- |' * (1 + len(BENCHMARKS))}"]
    for model, title in MODELS.items():
        cells = []
        for name, best in highest.items():
            values = zip(recalls[model, name], best)
            cells.append(" / ".join(f"**{value:.2f}**" if value == top else f"{value:.2f}" for value, top in values))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


# Rows of the table of costs; an H100 at 40 % of its peak embeds as many images as docs/scaling.md counts, and a core
# decodes as many JPEGs of 500 x 375 pixels as it measured
COLLECTIONS = (30_000, 1_000_000, 5_000_000, 100_000_000)
IMAGES_OF_A_GPU = 11_262
IMAGES_OF_A_CORE = 181
CORES_OF_A_GPU = 16


def format_hours(hours: float) -> str:
    """A time in the unit in which it is read."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} seconds"
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"


def format_megabytes(megabytes: float) -> str:
    """A size in MB, or from a thousand on in GB."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def format_costs(folder: Path) -> str:
    """What collections of several sizes cost, computed from the measurements of images and of search."""
    images = json.loads((folder / "images.json").read_text(encoding="utf-8"))["tables"][0]["rows"]
    images_of_two_cores = float(images["from files, 2 workers"]["images a second"])
    tables = json.loads((folder / "search.json").read_text(encoding="utf-8"))["tables"]
    small, medium, large = (table["rows"]["table"] for table in tables)  # 10,000, 100,000 and a million vectors
    memory_of_a_row = (large["megabytes_of_memory"] - medium["megabytes_of_memory"]) / 900_000
    lines = [
        "| images | two cores embed | one GPU embeds | index is built | disk | memory | a search |",
        f"|{' --- |' * 7}",
    ]
    for count in COLLECTIONS:
        has_index = count > 50_000
        on_cores = format_hours(count / images_of_two_cores / 3600)
        on_gpu = format_hours(count / min(IMAGES_OF_A_GPU, CORES_OF_A_GPU * IMAGES_OF_A_CORE) / 3600)
        if has_index:
            built = format_hours(count / 1_000_000 * large["seconds_to_build"] / 3600)
            disk = format_megabytes(count / 1_000_000 * large["megabytes_on_disk"])
            memory = format_megabytes(large["megabytes_of_memory"] + (count - 1_000_000) * memory_of_a_row)
            milliseconds = count / 1_000_000 * large["median_milliseconds"]
        else:
            built = "not needed"
            disk = format_megabytes(count / 10_000 * small["megabytes_on_disk"])
            memory = format_megabytes(small["megabytes_of_memory"])
            milliseconds = small["median_milliseconds"]
        name = f"{count:,}"
        lines.append(
            f"| {name} | {on_cores} | {on_gpu} | {built} | {disk} | {memory} | {milliseconds:,.0f} ms |",
        )
    return "\n".join([*lines, "", ""])


# The settings of `align.py` that are shown
ALIGN_SETTINGS = ("linear heads", "mlp heads", "keep text, mlp head", "keep image, linear head")
ALIGN_DATA = ("lamps", "flags", "scenes")
# Images that are trained on, None for all
ALIGN_PAIRS = (50, 100, 200, None)
ALIGN_EXPECTED = {"lamps": (50, 200, None), "flags": (None,)}
ALIGN_DEFAULT = "linear heads"


def format_spread(values: list[float], sign: str = "") -> str:
    """The mean and the standard deviation of some values; nothing if there are none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):{sign}.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.1f}"


def select_rows(results: dict, trained_on: str, data: str, setting: str, pairs: int | None) -> dict[int, dict]:
    """The rows of a setting by their seeds, of so many images that were trained on, or of all."""
    rows = []
    for row in results["rows"]:
        if (row["trained_on"], row["data"], row["setting"]) == (trained_on, data, setting):
            rows.append(row)
    if pairs is None:
        pairs = max((row["pairs"] for row in rows), default=0)
    return {row["seed"]: row for row in rows if row["pairs"] == pairs}


def format_align_settings(results: dict) -> list[str]:
    """What each setting finds."""
    lines = ["| data | setting | short MRR | long MRR |", f"|{' --- |' * 4}"]
    for data in ALIGN_DATA:
        table = {name: select_rows(results, data, data, name, None).values() for name in ALIGN_SETTINGS}
        table["`lotlip train`"] = [row for row in results.get("training", []) if row["data"] == data]
        for setting, rows in table.items():
            if rows:
                cells = [data, setting]
                cells += [format_spread([row[metric] for row in rows]) for metric in ("short_mrr", "long_mrr")]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def format_align_commands(results: dict) -> list[str]:
    """What each setting costs as a command, in a process of its own: seconds of a core, and MB at most."""
    costs = {}
    for row in [*results["commands"], *results.get("training", [])]:
        # of several trainings the first
        costs.setdefault((row["setting"], row["data"]), f"{row['seconds']:,.0f}, {row['peak_memory_mb']:,.0f}")
    datasets = list(dict.fromkeys(data for _, data in costs))
    lines = [f"| seconds of a core, MB | {' | '.join(datasets)} |", f"|{' --- |' * (1 + len(datasets))}"]
    for setting in dict.fromkeys(name for name, _ in costs):
        cells = [costs.get((setting, data), "") for data in datasets]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return lines


def format_align_heads(results: dict) -> list[str]:
    """By how many points of MRR of long texts linear heads are ahead of an MLP, over the seeds of both."""
    titles = [str(pairs or "all") for pairs in ALIGN_PAIRS]
    lines = [f"| find | {' | '.join(titles)} |", f"|{' --- |' * (1 + len(titles))}"]
    for data in ALIGN_DATA:
        cells = [data]
        for pairs in ALIGN_PAIRS:
            linear = select_rows(results, data, data, "linear heads", pairs)
            mlp = select_rows(results, data, data, "mlp heads", pairs)
            gains = [linear[seed]["long_mrr"] - mlp[seed]["long_mrr"] for seed in linear.keys() & mlp.keys()]
            cells.append(format_spread(gains, sign="+"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def format_align_expected(results: dict) -> list[str]:
    """What heads find by the defaults of `lotlip align`."""
    tests = {row["data"]: row["images"] for row in results["sizes"] if row["split"] == "test"}
    lines = ["| trained on | find | short R@10 | long R@10 |", f"|{' --- |' * 4}"]
    for data, numbers in ALIGN_EXPECTED.items():
        for number in numbers:
            rows = list(select_rows(results, data, data, ALIGN_DEFAULT, number).values())
            cells = [f"{rows[0]['pairs']} {data}", f"{tests[data]} {data}"]
            cells += [format_spread([row[metric] for row in rows]) for metric in ("short_recall@10", "long_recall@10")]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


# Dimensions of the features of the two towers, and operations of an image of the larger one
DIMS_OF_AN_IMAGE = 768
DIMS_OF_A_TEXT = 384
OPERATIONS_OF_AN_IMAGE = 11e9
OPERATIONS_OF_A_GPU = 0.4 * 989e12


def format_align_costs(results: dict) -> list[str]:
    """What millions of images cost, computed from the commands on flags, or else the first dataset."""
    seconds = {(row["data"], row["setting"]): row["seconds"] for row in results["commands"]}
    measured = [row["data"] for row in results["commands"]]
    data = "flags" if "flags" in measured else measured[0]  # of which the page speaks
    sizes = [row for row in results["sizes"] if row["data"] == data]
    num_images = sum(row["images"] for row in sizes)
    texts_of_an_image = max(row["texts"] / row["images"] for row in sizes)
    seconds_of_features = (seconds[data, "features and linear heads"] - seconds[data, "linear heads"]) / num_images
    heads = list(select_rows(results, "lamps", "lamps", "linear heads", None).values())
    seconds_of_an_epoch = statistics.fmean(row["seconds"] / row["epochs"] / row["pairs"] for row in heads)
    bytes_of_an_image = 4 * (DIMS_OF_AN_IMAGE + texts_of_an_image * DIMS_OF_A_TEXT)
    images_of_a_gpu = min(OPERATIONS_OF_A_GPU / OPERATIONS_OF_AN_IMAGE, CORES_OF_A_GPU * IMAGES_OF_A_CORE)
    lines = ["| images | features, two cores | H100 | epoch of heads, one core | memory |", f"|{' --- |' * 5}"]
    count = 30_000_000
    cells = [f"{count:,}", format_hours(count * seconds_of_features / 2 / 3600)]
    cells += [format_hours(count / images_of_a_gpu / 3600), format_hours(count * seconds_of_an_epoch / 3600)]
    cells.append(format_megabytes(count * bytes_of_an_image / 1e6))
    lines.append(f"| {' | '.join(cells)} |")
    return lines


ALIGN_TABLES = {
    "settings": format_align_settings,
    "commands": format_align_commands,
    "heads": format_align_heads,
    "expected": format_align_expected,
    "costs": format_align_costs,
}


def fill(text: str, folder: Path) -> str:
    """A page with the tables of its blocks; a block whose measurement is not there stays as it is."""

    def replace(match: re.Match) -> str:
        name, *variants = shlex.split(match[2])
        if name == "published":
            return match[1] + format_published() + match[3]
        if name == "cost":
            return match[1] + format_costs(folder) + match[3]
        file = folder / f"{name}.json"
        if not file.is_file():
            return match[0]
        results = json.loads(file.read_text(encoding="utf-8"))
        if name == "near":
            table = format_near(folder) if not variants else format_gain(folder)
        elif name == "align":
            table = "\n".join([*ALIGN_TABLES[variants[0]](results), "", ""])
        elif "recalls" in results:
            table = format_recalls(results, variants)
        else:
            table = format_table(results, name, variants)
        return match[1] + table + match[3]

    return BLOCK.sub(replace, text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = fill(before, ROOT / "docs" / "measured")
        if after != before:
            page.write_text(after, encoding="utf-8")
