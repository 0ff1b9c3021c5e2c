# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of users, and which of them import which others."""

import ast
import sys
from collections.abc import Iterable
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType

from .libraries import is_of_library


# What is of no user wherever it lies, as a checkout of it: while a program runs it loads ever more of its modules
LIBRARIES = ("modeling_lotlip", "torch", "transformers")


def is_user_module(module: ModuleType) -> bool:
    """Returns whether a module has a source file that is neither of Python, nor of this or another library."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or module.__name__.partition(".")[0] in LIBRARIES:
        return False
    path = Path(file)
    return path.suffix == ".py" and path.is_file() and not is_of_library(path)


def list_names_in_source(module: ModuleType) -> set[str]:
    """Lists the modules that the import statements of a module's file name, and what it takes from them."""
    file = Path(module.__file__)
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # it was changed since it was imported
        return set()
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level > 0:
                try:
                    name = resolve_name("." * node.level + name, module.__package__)
                except ImportError:  # the statement fails, and the module goes on otherwise
                    continue
            names.add(name)
            names.update(f"{name}.{alias.name}" for alias in node.names)
    return names


def list_imported_modules(module: ModuleType) -> list[ModuleType]:
    """
    Lists the modules that a module imports, as far as they are loaded: those that its import statements name, also in
    functions, and those that it holds, or whose classes and functions it holds.
    """
    imported = []
    names = set()
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            imported.append(value)
        elif isinstance(value, (type, FunctionType)):
            names.add(value.__module__)
    if is_user_module(module):
        names |= list_names_in_source(module)
    for name in names:
        parts = (name or "").split(".")
        # what is in a package is imported with it
        packages = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        loaded = [sys.modules.get(package) for package in packages]
        imported += [package for package in loaded if package is not None]
    return imported


def map_user_files(modules: Iterable[ModuleType]) -> dict[Path, set[Path]]:
    """
    Maps the files of modules, and of those that they import, directly or not, which are neither of Python nor of a
    library, installed packages and this one, to those that each imports. Not seen are a module that is not loaded
    yet, one that code imports by a name that it computes, of which it keeps neither the module nor a class or
    function, files that code reads itself, and compiled modules.
    """
    waiting = list(modules)
    seen = set(map(id, waiting))
    files = {}
    while waiting:
        module = waiting.pop()
        imported = [other for other in list_imported_modules(module) if is_user_module(other)]
        if is_user_module(module):
            files[Path(module.__file__)] = {Path(other.__file__) for other in imported}
        for other in imported:
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return files
