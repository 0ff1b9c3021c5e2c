# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Python files of users, which register objectives, losses, models or readers of rows: `--plugin FILE.py`."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TypeVar

from .user_files import map_user_files


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

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PluginImport:
    """An attempt to import a plugin: another one of the same file is not equal to it."""

    name: str


# The plugins that are being imported, the last one now: what they register is theirs
_imports: list[PluginImport] = []


@dataclass(frozen=True)
class UserFile:
    """The source of a plugin, or of a module of a user that one imports, and the files that it imports itself."""

    source: bytes
    imported: set[Path]


# By their paths, as they were when a plugin was imported: while a program runs files may change, and more be loaded
_files: dict[Path, UserFile] = {}


@contextmanager
def noting_import(name: str) -> Iterator[None]:
    """Notes what is registered inside as that of a plugin."""
    _imports.append(PluginImport(name))
    try:
        yield
    finally:
        _imports.pop()


class Registry(MutableMapping[str, T]):
    """
    What plugins register by name, beside what the package has. However a name is set, by `update` too, nothing
    of the package is replaced, nor what a plugin has registered by another one, or twice by the same. Who tries
    something in Python may set a name again.

    Args:
        what (`str`): What messages call an item, such as `"objective"`.
        built_in (`Mapping[str, T]`, *optional*): The items of the package.
    """

    def __init__(self, what: str, built_in: Mapping[str, T] | None = None):
        self.what = what
        self.built_in = tuple(built_in or ())
        self.items_by_name: dict[str, T] = dict(built_in or {})
        self.registered_by: dict[str, PluginImport] = {}

    def __getitem__(self, name: str) -> T:
        return self.items_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_by_name)

    def __len__(self) -> int:
        return len(self.items_by_name)

    def __ior__(self, others: Mapping[str, T]) -> "Registry[T]":
        self.update(others)
        return self

    def __setitem__(self, name: str, item: T) -> None:
        if name in self.built_in:
            raise ValueError(f"The {self.what} `{name}` is one of this package: rename yours.")
        self.check(name, item)
        if _imports:
            self.note(name, _imports[-1])
        self.items_by_name[name] = item

    def __delitem__(self, name: str) -> None:
        del self.items_by_name[name]
        self.registered_by.pop(name, None)

    def check(self, name: str, item: T) -> None:
        """Raises a `ValueError` for an item that is none: see subclasses."""

    def note(self, name: str, plugin: PluginImport) -> None:
        """
        Notes which plugin registers a name. Raises a `ValueError` if another one has, or this one twice. One
        whose import has failed may be imported again.
        """
        earlier = self.registered_by.get(name)
        if earlier is plugin:
            raise ValueError(f"The {self.what} `{name}` is registered twice: rename one of both.")
        if earlier is not None and earlier.name != plugin.name:
            raise ValueError(
                f"The {self.what} `{name}` is registered by {earlier.name}.py and {plugin.name}.py: rename one."
            )
        self.registered_by[name] = plugin


def load_plugin(path: str | Path) -> ModuleType:
    """
    Imports a Python file as the module of its name, once, so that what it registers is there. What it defines can be
    imported by that name, also by processes that read data. Raises a `ValueError` if the file cannot be imported, ends
    the program, or another module has its name.
    """
    path = Path(path).absolute()
    name = path.stem
    check_name(path)
    is_imported = name in sys.modules
    try:
        with noting_import(name):
            module = importlib.import_module(name)
    except SystemExit as error:  # else the command would end as if it were done
        raise ValueError(
            f"--plugin {path} ends the program while it is imported (line {find_line(path, error)}): "
            'put what it runs as a script under `if __name__ == "__main__":`.'
        ) from error
    except SyntaxError as error:  # says the line itself
        raise ValueError(f"--plugin {path} cannot be imported: SyntaxError: {error}") from error
    except IMPORT_ERRORS as error:
        raise ValueError(
            f"--plugin {path} cannot be imported: {type(error).__name__}: {error} (line {find_line(path, error)})"
        ) from error
    if not is_imported or Path(module.__file__) not in _files:
        note_files(module)
    return module


def check_name(path: Path) -> None:
    """Raises a `ValueError` if a file cannot be imported by its name, with its folder added to those of modules."""
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


def find_line(path: Path, error: BaseException) -> int | None:
    """Finds the last line of a file that an error came through; None if it came through none."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename).name == path.name]
    return lines[-1] if lines else None


def note_files(module: ModuleType) -> None:
    """Notes the sources of a plugin and of all modules of users that it imports: see [`map_user_files`]."""
    for file, imported in map_user_files([module]).items():
        _files[file] = UserFile(file.read_bytes(), imported)


def list_sources(file: Path) -> dict[Path, bytes]:
    """
    Lists the source of a file and those of all files of users that it imports, directly or not, as they were when a
    plugin was imported. A file that no plugin has imported has none.
    """
    waiting = [file]
    sources = {}
    while waiting:
        path = waiting.pop()
        if path in _files and path not in sources:
            sources[path] = _files[path].source
            waiting += _files[path].imported
    return sources


def hash_plugin(path: str | Path) -> str:
    """Returns a hash of the sources of a plugin that is imported, by which changes are noticed: [`list_sources`]."""
    own_file = Path(importlib.import_module(Path(path).stem).__file__)
    sources = list_sources(own_file)
    # one that is installed is of no user, and is the only file
    hashed = hashlib.sha256(sources.pop(own_file, None) or own_file.read_bytes())
    for _, source in sorted((file.name, source) for file, source in sources.items()):
        hashed.update(source)
    return hashed.hexdigest()[:16]


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
