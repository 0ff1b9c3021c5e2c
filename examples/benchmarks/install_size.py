# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What an installation takes on the disk: the package with what it needs, and what each extra adds.

    python examples/benchmarks/install_size.py

Counts the files of the distributions that are installed in this environment; one that is not installed is named.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modeling_lotlip.arguments import Arguments, argument, check_output_file, exit_on_error, parse
from modeling_lotlip.files import format_markdown, write_json


PACKAGE = "modeling_lotlip"


@dataclass
class InstallSizeArguments(Arguments):
    """What is counted."""

    extras: list[str] = argument(
        ["app", "heic", "onnx", "serve", "endpoint", "sentence-transformers", "mteb", "peft"], "The extras."
    )
    output_file: Path | None = argument(None, "Write the sizes to this JSON file, in bytes.")

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file)


def find_needed(name: str, extras: frozenset[str], found: set[tuple[str, frozenset]]) -> set[str]:
    """The distributions that one needs with these extras, itself included, by their canonical names."""
    name = canonicalize_name(name)
    if (name, extras) in found:
        return set()
    found.add((name, extras))
    needed = {name}
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return needed
    for requirement in map(Requirement, lines):
        environments = [{"extra": extra} for extra in (extras or {""})]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            needed |= find_needed(requirement.name, frozenset(requirement.extras), found)
    return needed


def count_bytes(name: str) -> int | None:
    """The files of a distribution in bytes; None if it is not installed."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [file.locate() for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    (args,) = parse((InstallSizeArguments,), description=__doc__)
    plain = find_needed(PACKAGE, frozenset(), set())
    torch = find_needed("torch", frozenset(), set())
    parts = {"torch": torch, "the rest of a plain installation": plain - torch}
    parts |= {f"[{extra}]": find_needed(PACKAGE, frozenset([extra]), set()) - plain for extra in args.extras}
    rows, sizes = [], {}
    for title, names in parts.items():
        counted = {name: count_bytes(name) for name in names}
        absent = sorted(name for name, size in counted.items() if size is None)
        sizes[title] = sum(size for size in counted.values() if size is not None)
        rows.append([title, str(len(names)), f"{sizes[title] / 1e6:.0f} MB", ", ".join(absent)])
    print(format_markdown(["part", "packages", "size", "not installed here"], rows))
    if args.output_file is not None:
        write_json(args.output_file, sizes)


if __name__ == "__main__":
    with exit_on_error("install_size.py"):
        main()
