# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Arguments as dataclasses: what a command parses, a script sets and a library function takes is one and the same object.
Nothing here imports torch or transformers, so that `--help` answers at once.
"""

import dataclasses
import inspect
import json
import os
import sys
import time
import typing
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

import tyro

from .plugins import find_plugins, load_plugin


# The names of precisions that other libraries use, and PyTorch's for each
DTYPES = {name: name for name in ("float32", "float16", "bfloat16")}
DTYPES |= {"fp32": "float32", "no": "float32", "fp16": "float16", "bf16": "bfloat16"}


def argument(
    default: Any = MISSING,
    help: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Collection | None = None,
    aliases: tuple[str, ...] = (),
    metavar: str | None = None,
    positional: bool = False,
    requires: str | None = None,
    excludes: tuple[str, ...] = (),
    compared_on_resume: bool = False,
) -> Any:
    """
    A field of a dataclass of arguments. One that has its default counts as not given.

    Args:
        default (`Any`, *optional*):
            Its default. Without one the argument is required. A list is copied for each object.
        least, most (`float`, *optional*), choices (`Collection`, *optional*):
            The values that are allowed.
        aliases (`tuple[str, ...]`, *optional*), metavar (`str`, *optional*), positional (`bool`, *optional*):
            Other names such as `--model`; what stands for the value in `--help`; whether it has a place, not a name.
        requires (`str`, *optional*), excludes (`tuple[str, ...]`, *optional*):
            An argument of the same command without which, and others beside which, it has no effect.
        compared_on_resume (`bool`, *optional*, defaults to `False`):
            Whether a training can only be resumed with the same value, which its model card lists.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Arguments:
    """Base class of dataclasses of arguments. Raises a `ValueError` at what their declarations refuse."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, (list, tuple)) else [value]
            least, most, choices = map(field.metadata.get, ("least", "most", "choices"))
            for value in values:
                if value is not None and least is not None and not value >= least:
                    raise ValueError(f"--{field.name} must be at least {least}, got {value}.")
                if value is not None and most is not None and not value <= most:
                    raise ValueError(f"--{field.name} must be at most {most}, got {value}.")
                if value is not None and choices is not None and value not in choices:
                    raise ValueError(f"--{field.name} must be one of {', '.join(map(str, choices))}, got {value}.")
            if field.name in ("output_dir", "index_dir") and value is not None:
                there = next(path for path in (Path(value), *Path(value).absolute().parents) if path.exists())
                if not there.is_dir():
                    raise ValueError(f"--{field.name} {value} cannot be used: {there} is a file. Name a folder.")
        check_combinations([self])


def get_default(field: dataclasses.Field) -> Any:
    """The default of a field, `MISSING` where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def check_combinations(arguments: Iterable[Arguments]) -> None:
    """Raises a `ValueError` if arguments, given together, lack one that they require, or exclude each other."""
    known = {field.name: (field, getattr(group, field.name)) for group in arguments for field in fields(group)}
    given = {name: field.metadata for name, (field, value) in known.items() if value != get_default(field)}
    for name, metadata in given.items():
        required = metadata.get("requires")
        if required in known and required not in given:
            remedy = f"add --{required}, or leave out --{name}"
            raise ValueError(f"--{name} has no effect without --{required}: {remedy}.")
        for other in (name for name in metadata.get("excludes", ()) if name in given):
            names = "/".join([f"--{other}", *given[other].get("aliases", ())])
            raise ValueError(f"--{name} excludes {names}: leave out one of them.")


def check_output_file(path: Path | None, endings: tuple[str, ...] = (".json",)) -> None:
    """Raises a `ValueError` if an `--output_file` has another ending or cannot be written, before the work for it."""
    if path is None:
        return
    if path.suffix not in endings:
        named = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise ValueError(f"--output_file {path} must end in {named}.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--output_file {path} cannot be written: {folder} is not a writable folder.")


def refuse_given(arguments: Arguments, names: Iterable[str], why: str) -> None:
    """Raises a `ValueError`, `why` it has no effect, if an argument of these names was given: see also `requires`."""
    for field in fields(arguments):
        if field.name in names and getattr(arguments, field.name) != get_default(field):
            raise ValueError(f"--{field.name} {why}")


def list_groups(arguments: Iterable[type]) -> dict[str, list[dataclasses.Field]]:
    """The fields of dataclasses, with resolved types, by the titles of groups that the declaring classes have."""
    groups = {}
    for cls in arguments:
        types = typing.get_type_hints(cls)
        for field in fields(cls):
            owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
            field.type = types[field.name]
            groups.setdefault(getattr(owner, "_argument_group_name", "other"), []).append(field)
    return groups


def describe_default(field: dataclasses.Field) -> str:
    """The default of a field as the help shows it, nothing where the text of the help tells it."""
    default = get_default(field)
    if default is MISSING:
        return "(required)"
    if default in (None, False, [], "") or "default" in field.metadata["help"].lower():
        return ""
    return f"(default: {' '.join(map(str, default)) if isinstance(default, list) else default})"


def list_options(field: dataclasses.Field) -> list[tuple[str, Any, Any]]:
    """The name, annotated type and default of a field for tyro; of a flag that may be None, those of `no_` too."""
    metadata, kind, default = field.metadata, field.type, get_default(field)
    parts = [part for part in typing.get_args(kind) or (kind,) if part is not NoneType]
    is_list = list in (typing.get_origin(kind), typing.get_origin(parts[0]))
    element = typing.get_args(parts[0])[0] if typing.get_origin(parts[0]) is list else parts[0]
    metavar = metadata["metavar"] or ("N" if element in (int, float) else field.name.rpartition("_")[2].upper())
    if metadata["choices"] is not None:
        metavar = metadata["metavar"] or "{" + ",".join(map(str, metadata["choices"])) + "}"
        chosen = Literal[tuple(metadata["choices"])]
        kind = (list[chosen] if is_list else chosen) | (None if default is None else chosen)
    options = {"help": metadata["help"], "help_behavior_hint": describe_default(field)}
    if metadata["aliases"]:
        options["aliases"] = metadata["aliases"]
    if element is bool:
        flags = [(field.name, options)]
        if default is None:
            flags.append((f"no_{field.name}", options | {"help": f"The opposite of --{field.name}."}))
        return [
            (name, Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(**said)], False) for name, said in flags
        ]
    kind = Annotated[kind, tyro.conf.arg(metavar=f"{metavar} ..." if is_list else metavar, **options)]
    return [(field.name, Annotated[kind, tyro.conf.Positional] if metadata["positional"] else kind, default)]


def to_tyro(arguments: Iterable[type]) -> type:
    """A dataclass of all arguments in groups, which tyro makes a parser of."""
    groups = []
    for title, members in list_groups(arguments).items():
        options = []
        for name, kind, default in (option for field in members for option in list_options(field)):
            default = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
            options.append((name, kind, dataclasses.field(**default)))
        name = title.replace(" ", "_")
        groups.append((name, dataclasses.make_dataclass(name, options, kw_only=True)))
    return dataclasses.make_dataclass("parsed", groups)


def check_lists(arguments: Iterable[type], args: list[str]) -> None:
    """Raises a `ValueError` if a list is given in two places, of which the parser would use the last."""
    names = [arg.partition("=")[0].lstrip("-").replace("-", "_") for arg in args if arg.startswith("--")]
    for field in (field for cls in arguments for field in fields(cls)):
        is_list = field.default_factory is not MISSING or "list[" in str(field.type)
        if is_list and sum(names.count(name.lstrip("-")) for name in (field.name, *field.metadata["aliases"])) > 1:
            raise ValueError(f"--{field.name} is given twice: name all its values after one of them.")


def parse(
    arguments: tuple[type[Arguments], ...],
    args: list[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
) -> tuple:
    """
    An object of each dataclass of arguments, from a command line, by default that of the process. A mistake there ends
    the program with status 2 and a message on standard error. No two fields have the same name.

    Example:

    ```python
    >>> from dataclasses import dataclass
    >>> from modeling_lotlip.utils.arguments import Arguments, argument, parse

    >>> @dataclass
    ... class SearchArguments(Arguments):
    ...     text: str = argument(help="A text.", positional=True)
    ...     k: int = argument(10, "Number of results.", least=1)

    >>> parse((SearchArguments,), ["a red boat", "--k", "3"])
    (SearchArguments(text='a red boat', k=3),)
    >>> SearchArguments("a red boat", k=0)
    Traceback (most recent call last):
    ValueError: --k must be at least 1, got 0.
    ```"""
    args = sys.argv[1:] if args is None else args
    prog = prog or Path(sys.argv[0]).name
    if any(field.name == "plugin" for cls in arguments for field in fields(cls)):
        with exit_on_error(prog):
            for path in find_plugins(args):
                load_plugin(path)  # what it registers is a choice of other arguments
    parsed = tyro.cli(
        to_tyro(arguments),
        prog=prog,
        description=inspect.cleandoc(description or ""),
        args=args,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
    )
    values = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    with exit_on_error(prog):
        check_lists(arguments, args)
        for field in (field for cls in arguments for field in fields(cls)):
            name = field.name
            if f"no_{name}" in values and get_default(field) is None:
                if values[name] and values[f"no_{name}"]:
                    raise ValueError(f"--{name} excludes --no_{name}: leave out one of them.")
                values[name] = True if values[name] else False if values[f"no_{name}"] else None
            elif values[name] == [] and get_default(field) != []:
                raise ValueError(f"--{name} has no value: name one or more, or leave it out.")
        objects = tuple(cls(**{field.name: values[field.name] for field in fields(cls)}) for cls in arguments)
        check_combinations(objects)
    return objects


@contextmanager
def exit_on_error(prog: str) -> Iterator[None]:
    """
    Ends a program after a mistake of its user with one line on standard error and status 2, after Ctrl-C with status
    130. The traceback is shown where the environment says `LOTLIP_DEBUG=1`.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"{prog}: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("LOTLIP_DEBUG") == "1":
            raise
        message = f"{prog}: error: {' '.join(str(error).split()) or type(error).__name__}"
        print(message, file=sys.stderr)
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun repeats the cause at its end
            with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w", encoding="utf-8") as file:
                json.dump({"message": message, "timestamp": int(time.time())}, file)
        sys.exit(2)
