# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What became of the captions of each captioner, with examples: `report.json` and `report.md`."""

from collections import Counter, defaultdict
from pathlib import Path

from ..files import format_markdown, write_json, write_text


NUM_EXAMPLES = 5
MAX_EXAMPLE_LENGTH = 300


def shorten(text: str) -> str:
    """The beginning of a text, and its end."""
    half = MAX_EXAMPLE_LENGTH // 2
    return text if len(text) <= MAX_EXAMPLE_LENGTH else f"{text[:half]} [...] {text[-half:]}"


class Outcomes:
    """What became of the captions of each captioner, with the first examples of what each rule did."""

    def __init__(self):
        self.numbers = defaultdict(Counter)  # by captioner
        self.rejected, self.changed = defaultdict(Counter), defaultdict(Counter)  # by captioner and rule
        self.examples = defaultdict(list)  # by rule and captioner

    def reject(self, captioner: str, rule: str, caption: str | None) -> None:
        """Counts a caption that a rule rejects."""
        self.rejected[captioner][rule] += 1
        self.show(captioner, rule, caption, None)

    def change(self, captioner: str, rules: list[str], before: str, after: str) -> None:
        """Counts a caption that rules changed."""
        self.changed[captioner].update(rules)
        for rule in rules:
            self.show(captioner, rule, before, after)

    def show(self, captioner: str, rule: str, before: str | None, after: str | None) -> None:
        examples = self.examples[rule, captioner]
        if sum((after is None) == (example["after"] is None) for example in examples) < NUM_EXAMPLES:
            examples.append({"before": shorten(before or ""), "after": after and shorten(after)})

    def to_dict(self) -> dict:
        """All of it, for the report."""
        captioners = {}
        for name, numbers in sorted(self.numbers.items()):
            num_kept = numbers["captions"] - numbers["failed"] - self.rejected[name].total()
            captioners[name] = {f"num_{what}": numbers[what] for what in ("captions", "failed", "unmeasured")}
            captioners[name] |= {"num_kept": num_kept, "rejected": dict(self.rejected[name])}
            captioners[name] |= {"changed": dict(self.changed[name])}
        examples = [
            {"rule": rule, "captioner": captioner, **example}
            for (rule, captioner), shown in sorted(self.examples.items())
            for example in shown
        ]
        return {"captioners": captioners, "examples": examples}


def format_table(titles: list[str], rows: list[list]) -> str:
    """A Markdown table of any values."""
    escaped = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in [titles, *rows]]
    return format_markdown(escaped[0], escaped[1:])


def format_outcomes(report: dict) -> str:
    """What became of the captions, in Markdown."""
    captioners = report["captioners"]
    titles = ["captions", "failed", "unmeasured", "kept"]
    numbers = [[name, *(of[f"num_{title}"] for title in titles)] for name, of in captioners.items()]
    # rows may have been marked by others before
    rules = dict.fromkeys([*report["rules"], *(rule for of in captioners.values() for rule in of["rejected"])])
    columns = [(name, what) for name in captioners for what in ("rejected", "changed")]
    rows = [
        [rule, report["rules"].get(rule) or "", *(captioners[name][what].get(rule, 0) for name, what in columns)]
        for rule in rules
    ]
    names = [f"{name} {what}" for name, what in columns]
    return f"{format_table(['captioner', *titles], numbers)}\n\n{format_table(['rule', 'number', *names], rows)}"


def write_report(report: dict, folder: Path) -> None:
    """Writes a report as `report.json` and as `report.md`."""
    write_json(folder / "report.json", report)
    rows = [[of["rule"], of["captioner"], of["before"], of["after"] or "rejected"] for of in report["examples"]]
    examples = format_table(["rule", "captioner", "caption", "became"], rows)
    parts = ["# Captions", format_outcomes(report), "## Examples", examples]
    if "image_text_similarity" in report:
        measured = report["image_text_similarity"]
        means = [[name, f"{mean:.3f}"] for name, mean in measured["mean"].items()]
        lowest = [[f"{of['similarity']:.3f}", of["key"], of["caption"]] for of in measured["lowest"]]
        parts += [f"## Image and text, by {measured['model']}", format_table(["captioner", "mean similarity"], means)]
        parts += ["The least similar:", format_table(["similarity", "key", "caption"], lowest)]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
