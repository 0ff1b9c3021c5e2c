# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Python files of users, which register objectives, losses, models or readers of rows: `--plugin FILE.py`."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


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
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"--plugin {path} cannot be imported: {type(error).__name__}: {error}") from error


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
