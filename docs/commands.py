# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A hook of MkDocs: the page of the commands, from their parsers."""

import dataclasses
import importlib
import inspect
from typing import Any

from modeling_lotlip.commands import COMMANDS
from modeling_lotlip.utils.arguments import describe_default, list_groups


PLACE = "<!-- commands -->"


def describe(field: dataclasses.Field) -> str:
    """A row of a table: the names of an argument, and its help with the default."""
    metadata = field.metadata
    names = [field.name.upper()] if metadata["positional"] else [f"--{field.name}", *metadata["aliases"]]
    choices = metadata["choices"] and f"One of {', '.join(f'`{choice}`' for choice in metadata['choices'])}."
    text = " ".join(filter(None, (metadata["help"], choices, describe_default(field))))
    return f"| {', '.join(f'`{name}`' for name in names)} | {text} |".replace("\n", " ")


def describe_command(name: str) -> str:
    """The section of a command: what it does, and its arguments by group."""
    command = importlib.import_module(f"modeling_lotlip.commands.{name}")
    summary, _, rest = inspect.getdoc(command).partition("\n\n")
    lines = [f"## lotlip {name}", "", summary, "", rest, ""]
    for title, members in list_groups(command.ARGUMENTS).items():
        lines += [f"**{title.capitalize()}**", "", "| argument | |", "| --- | --- |", *map(describe, members), ""]
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the commands in their place on the page that has one."""
    return markdown.replace(PLACE, "\n".join(map(describe_command, COMMANDS))) if PLACE in markdown else markdown
