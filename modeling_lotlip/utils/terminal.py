# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What commands and scripts show: progress bars and tables, in a terminal, a log file or a pipe."""

import shlex
import subprocess
import sys
import unicodedata
from typing import Any, TextIO

from tqdm.auto import tqdm


# Of a bar in a log file, the minimum of seconds from one line to the next
LOG_INTERVAL = 10.0


class LogLines:
    """A stream on which each state of a progress bar is a line of its own, written to another stream."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes a line, unless it is blank."""
        line = text.strip()
        if line:
            self.stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """Flushes the other stream."""
        self.stream.flush()


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """Makes a bar of `tqdm` on standard error; without a terminal a line every ten seconds: log files stay short."""
    if sys.stderr.isatty():
        return tqdm(*args, **options)
    options |= {"file": LogLines(sys.stderr), "mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL}
    return tqdm(*args, **options)


def announce(step: str) -> None:
    """Says on standard error what a program does next, as it takes seconds: at once, also in a file or a pipe."""
    print(f"{printable(step)} ...", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """
    Writes the control codes in a line as escapes, such as those in names of files, which could clear a terminal or do
    worse.
    """
    characters = []
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            character = character.encode("unicode_escape").decode()
        characters.append(character)
    return "".join(characters)


def quote(path: str) -> str:
    """Quotes a path for the command line of this system, where that is needed."""
    if sys.platform == "win32":  # whose shells know double quotes alone
        return subprocess.list2cmdline([path])
    return shlex.quote(path)


def without_stop(text: object) -> str:
    """Writes an error, or another text, without the full stop at its end: it goes on within a sentence."""
    return str(text).rstrip(". \n")


def print_tables(markdown: str) -> None:
    """Prints Markdown to standard output: drawn where that is a terminal, and as it is in a pipe or a file."""
    if not sys.stdout.isatty():
        print(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown))
