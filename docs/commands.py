# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A hook of MkDocs: the page of the commands, from their parsers."""

import argparse
import importlib
import inspect
from typing import Any

from modeling_lotlip.arguments import HelpFormatter, argument_parser
from modeling_lotlip.commands import COMMANDS


PLACE = "<!-- commands -->"


def describe(action: argparse.Action, formatter: HelpFormatter) -> str:
    """A row of a table: the names of an argument, and its help with the default."""
    names = [name for name in action.option_strings if "-" not in name.lstrip("-")] or [action.dest.upper()]
    text = formatter._get_help_string(action).replace("%%", "%")
    choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {text}{choices} |".replace("\n", " ")


def describe_command(name: str) -> str:
    """The section of a command: what it does, and its arguments by group."""
    command = importlib.import_module(f"modeling_lotlip.commands.{name}")
    parser = argument_parser(command.ARGUMENTS, prog=f"lotlip {name}")
    formatter = HelpFormatter(parser.prog)
    summary, _, rest = inspect.getdoc(command).partition("\n\n")
    lines = [f"## lotlip {name}", "", summary, "", rest, ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest not in ("help", argparse.SUPPRESS)]
        if actions:
            lines += [f"**{group.title.capitalize()}**", "", "| argument | |", "| --- | --- |"]
            lines += [*(describe(action, formatter) for action in actions), ""]
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the commands in their place on the page that has one."""
    return markdown.replace(PLACE, "\n".join(map(describe_command, COMMANDS))) if PLACE in markdown else markdown
