# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Python files of users, which register objectives, losses, models or readers of rows: `--plugin FILE.py`."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from traceback import extract_tb
from types import ModuleType


# What the code of a file raises while it is imported, as far as a mistake of its author is
IMPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_plugin(path: str | Path) -> ModuleType:
    """
    Imports a Python file as the module of its name, once, so that what it registers is there. What it defines can be
    imported by that name, also by processes that read data. Raises a `ValueError` if the file cannot be imported, or
    another module has its name.
    """
    path = Path(path).absolute()
    name = path.stem
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"--plugin {path} is no Python file: name a file that ends in .py.")
    if not name.isidentifier():
        raise ValueError(f"--plugin {path} cannot be imported: rename it, to letters, digits and underscores.")
    importlib.invalidate_caches()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    found = importlib.util.find_spec(name)  # the module that has the name, loaded or not
    if found is None or found.origin is None or Path(found.origin).resolve() != path.resolve():
        raise ValueError(f"--plugin {path} has the name of another module, {name}: rename the file.")
    try:
        return importlib.import_module(name)
    except SyntaxError as error:  # says the line itself
        raise ValueError(f"--plugin {path} cannot be imported: SyntaxError: {error}") from error
    except IMPORT_ERRORS as error:
        raise ValueError(
            f"--plugin {path} cannot be imported: {type(error).__name__}: {error} (line {find_line(path, error)})"
        ) from error


def find_line(path: Path, error: Exception) -> int | None:
    """Finds the last line of a file that an error came through; None if it came through none."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename).name == path.name]
    return lines[-1] if lines else None


def hash_plugin(path: str | Path) -> str:
    """Returns a hash of the source of a plugin, by which a change is noticed."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def find_plugins(args: list[str]) -> list[str]:
    """Finds the files that a command line names after `--plugin`, before it can be parsed."""
    paths = []
    is_value = False
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
            is_value = name == "plugin"
            if is_value and equals:
                paths.append(value)
        elif is_value:
            paths.append(arg)
    return paths
