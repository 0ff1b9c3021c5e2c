# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The report on captions that models have written: what became of those of each captioner, with examples, and what was
measured. `report.json` has everything, `report.md` shows it by `templates/captions_report.md`.
"""

from collections import Counter, defaultdict
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..evaluation.statistics import format_table
from ..files import write_json
from ..output_folder import atomic_write


NUM_EXAMPLES = 5
MAX_EXAMPLE_LENGTH = 300


def shorten(text: str) -> str:
    """The beginning of a text, and its end."""
    half = MAX_EXAMPLE_LENGTH // 2
    return text if len(text) <= MAX_EXAMPLE_LENGTH else f"{text[:half]} [...] {text[-half:]}"


class Outcomes:
    """What became of the captions of each captioner, with examples of what each rule did."""

    def __init__(self):
        self.num_captions, self.num_failed = Counter(), Counter()  # by captioner
        self.rejected = defaultdict(Counter)  # by captioner and rule
        self.changed = defaultdict(Counter)
        self.examples = defaultdict(list)  # by rule and captioner

    def reject(self, captioner: str, rule: str, caption: str | None) -> None:
        """Counts a caption that a rule rejects."""
        self.rejected[captioner][rule] += 1
        self.show(captioner, rule, {"rejected": shorten(caption or "")})

    def change(self, captioner: str, rules: list[str], before: str, after: str) -> None:
        """Counts a caption that rules mended."""
        self.changed[captioner].update(rules)
        for rule in rules:
            self.show(captioner, rule, {"before": shorten(before), "after": shorten(after)})

    def show(self, captioner: str, rule: str, example: dict[str, str]) -> None:
        """Keeps the first examples of each kind."""
        examples = self.examples[rule, captioner]
        if sum(example.keys() == other.keys() for other in examples) < NUM_EXAMPLES:
            examples.append(example)

    def count_kept(self, captioner: str) -> int:
        """The captions that are there, and that no rule rejects."""
        return self.num_captions[captioner] - self.num_failed[captioner] - self.rejected[captioner].total()

    def is_any_kept(self) -> bool:
        """Whether any captioner has such a caption."""
        return any(map(self.count_kept, self.num_captions))

    def to_dict(self) -> dict:
        """All of it, for the report."""
        captioners = {
            name: {
                "num_captions": number,
                "num_failed": self.num_failed[name],
                "num_kept": self.count_kept(name),
                "rejected": dict(self.rejected[name]),
                "changed": dict(self.changed[name]),
            }
            for name, number in sorted(self.num_captions.items())
        }
        examples = defaultdict(dict)
        for (rule, captioner), shown in sorted(self.examples.items()):
            examples[rule][captioner] = shown
        return {"captioners": captioners, "examples": dict(examples)}


def escape_cell(value: object) -> str:
    """A value as a cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def render(template: str, report: dict) -> str:
    """A report, or a part of it, by one of the templates."""
    environment = Environment(
        loader=PackageLoader(__package__.partition(".")[0]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["cell"] = escape_cell
    rejecting = [rule for of in report["captioners"].values() for rule in of["rejected"]]
    rule_names = list(dict.fromkeys([*report["rules"], *rejecting]))  # rows may have been marked by others before
    lengths = format_table("kept", report["statistics"]) if "statistics" in report else None
    return environment.get_template(template).render(report, rule_names=rule_names, lengths=lengths).rstrip("\n")


def format_outcomes(report: dict) -> str:
    """What became of the captions, in Markdown."""
    return render("captions_outcomes.md", report)


def write_report(report: dict, folder: Path) -> None:
    """Writes a report as `report.json` and as `report.md`."""
    write_json(folder / "report.json", report)
    with atomic_write(folder / "report.md") as partial:
        partial.write_text(render("captions_report.md", report) + "\n", encoding="utf-8")
