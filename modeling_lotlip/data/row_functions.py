# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import ast
import inspect
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType

from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher

from ..utils.libraries import is_of_library
from ..utils.plugins import Registry
from .images import undecoded
from .rows import name_row


class RowReaders(Registry[Callable[[dict], dict]]):
    """Holds functions that read rows by name."""

    def check(self, name: str, item: Callable[[dict], dict]) -> None:
        """Raises a `ValueError` for what is no function."""
        if not callable(item):
            raise ValueError(f"The row reader `{name}` is a {type(item).__name__}: give a function.")


# By name, functions that take a row without its image, and return columns that are added to it
ROW_READERS = RowReaders("row reader")


def is_user_module(module: ModuleType) -> bool:
    """Returns whether a module has a source file that is neither of Python, nor of this or another library."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or module.__name__.partition(".")[0] == "modeling_lotlip":
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
        imported += [sys.modules[package] for package in packages if package in sys.modules]
    return imported


def list_user_files(modules: Iterable[ModuleType]) -> list[Path]:
    """
    Lists the files of modules, and of those that they import, directly or not, which are neither of Python nor of a
    library, installed packages and this one. Not seen are a module that is not loaded yet, one that code imports by
    a name that it computes, of which it keeps neither the module nor a class or function, files that code reads
    itself, and compiled modules.
    """
    waiting = list(modules)
    seen = set(map(id, waiting))
    files = set()
    while waiting:
        module = waiting.pop()
        if is_user_module(module):
            files.add(Path(module.__file__))
        for imported in list_imported_modules(module):
            if id(imported) not in seen and is_user_module(imported):
                seen.add(id(imported))
                waiting.append(imported)
    return sorted(files)


def read_source(name: str) -> str:
    """
    Reads the source of a function of [`ROW_READERS`], of its whole file if it is in one, of the plugin that has
    registered it, and of all modules of users that these import: see [`list_user_files`].
    """
    function = ROW_READERS[name]
    while isinstance(function, partial):
        function = function.func
    module = inspect.getmodule(function)
    file = getattr(module, "__file__", None)
    sources = []
    if file is None:
        sources.append(inspect.getsource(function))
    else:
        sources.append(Path(file).read_text(encoding="utf-8"))
    modules = [module]
    if name in ROW_READERS.registered_by:
        modules.append(sys.modules.get(ROW_READERS.registered_by[name].name))
    for path in list_user_files(module for module in modules if module is not None):
        sources.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(sources)


@dataclass
class RowFunction:
    """
    Calls a function of a user with rows without their image, and returns what it makes, a column for each key.

    Args:
        name (`str`): Its name in [`ROW_READERS`].
        function (`Callable`): The function.
        image_column (`str`): The column of images.
        columns (`set[str]`, *optional*): The columns that it has made of earlier rows.
    """

    name: str
    function: Callable[[dict], dict]
    image_column: str
    columns: set[str] | None = None

    def __call__(self, row: dict, row_index: int | None = None) -> dict:
        """
        Raises a `ValueError` for a row of which the function makes no columns, since `datasets` would leave it as it
        is, or others than of earlier rows, of which some would be lost.
        """
        texts = {column: value for column, value in row.items() if column != self.image_column}
        made = self.function(texts)
        if not isinstance(made, Mapping) or not made:
            raise ValueError(
                f"`--row_reader {self.name}` returns {made!r} for {name_row(row, row_index)}, {reprlib.repr(texts)}: "
                'return a dictionary, with the same columns for every row, and "" or [] in a column of captions '
                "where there is none."
            )
        if self.columns is None:
            self.columns = set(made)
        if made.keys() != self.columns:
            raise ValueError(
                f"`--row_reader {self.name}` returns the columns {sorted(made)} for {name_row(row, row_index)}, "
                f"{reprlib.repr(texts)}, and {sorted(self.columns)} for earlier rows: return the same for every row, "
                'with "" or [] where there is no caption.'
            )
        return made


def read_rows(
    rows: Dataset | IterableDataset,
    name: str | None,
    image_column: str,
) -> Dataset | IterableDataset:
    """
    Adds the columns that a function makes of each row; those of the same names are replaced.

    Args:
        rows (`Dataset` or `IterableDataset`): The rows.
        name (`str`, *optional*): The name of the function in [`ROW_READERS`]; the rows stay as they are without.
        image_column (`str`): The column of images, which the function does not get.

    Raises:
        `ValueError`: if there is no such function, or it makes no columns of a row, or others than of those before.
    """
    if name is None:
        return rows
    if name not in ROW_READERS:
        known = ", ".join(ROW_READERS) or "none"
        raise ValueError(f"`--row_reader {name}` is not registered, but {known}: name its file with `--plugin`.")
    function = ROW_READERS[name]
    read = RowFunction(name, function, image_column)
    if isinstance(rows, IterableDataset):
        return undecoded(rows, image_column).map(read)  # else each image is decoded once more, and a broken one fails
    texts = rows.remove_columns([image_column] if image_column in rows.column_names else [])
    # a changed source is noticed, which a function that is imported by its name does not show
    fingerprint = Hasher.hash((texts._fingerprint, name, read_source(name)))
    made = texts.map(
        read,
        with_indices=True,
        remove_columns=texts.column_names,
        new_fingerprint=fingerprint,
        desc=f"Reading rows by {name}",
    )
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)
