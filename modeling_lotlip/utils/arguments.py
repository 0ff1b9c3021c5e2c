# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Arguments as dataclasses: what a command parses, a script sets and a library function takes is one and the same object.
Nothing here imports torch or transformers, so that `--help` answers at once.
"""

import dataclasses
import inspect
import json
import math
import os
import select
import sys
import time
import typing
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from glob import glob
from itertools import chain
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

import tyro

from .integers import is_integer
from .plugins import find_plugins, load_plugin


# The names of precisions that other libraries use, and PyTorch's for each
DTYPES = {name: name for name in ("float32", "float16", "bfloat16")}
DTYPES |= {"fp32": "float32", "no": "float32", "fp16": "float16", "bf16": "bfloat16"}

# Arguments that take patterns of the names of files
PATTERN_ARGUMENTS = ("caption_files", "captions", "data_files", "eval_data_files")


def argument(  # noqa: PLR0913, what a declaration may say
    default: Any = MISSING,
    help: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Collection | None = None,
    aliases: tuple[str, ...] = (),
    metavar: str | None = None,
    positional: bool = False,
    requires: str | None = None,
    excludes: tuple[str, ...] = (),
    compared_on_resume: bool = False,
) -> Any:
    """
    Declares a field of a dataclass of arguments. One that has its default counts as not given.

    Args:
        default (`Any`, *optional*):
            Its default. Without one the argument is required. A list is copied for each object.
        help (`str`, *optional*):
            What `--help` says of it.
        least (`float`, *optional*):
            The minimum of its values.
        most (`float`, *optional*):
            The maximum of its values.
        above (`float`, *optional*):
            What its values must be greater than.
        below (`float`, *optional*):
            What its values must be less than.
        choices (`Collection`, *optional*):
            The values that are allowed.
        aliases (`tuple[str, ...]`, *optional*):
            Other names such as `--model`.
        metavar (`str`, *optional*):
            What stands for the value in `--help`.
        positional (`bool`, *optional*, defaults to `False`):
            Whether it is known by its position, not by its name.
        requires (`str`, *optional*):
            An argument of the same command without which it has no effect.
        excludes (`tuple[str, ...]`, *optional*):
            Arguments of the same command that leave it without effect.
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
            if value is None and not may_be_none(field):
                raise ValueError(f"--{field.name} must not be None: give a value, or leave it out for its default.")
            values = value if isinstance(value, (list, tuple)) else [value]
            for one in values:
                if one is not None:
                    check_value(field, one)
            if field.name in ("output_dir", "index_dir") and value is not None:
                check_folder(field.name, Path(value))
        check_combinations([self])


def may_be_none(field: dataclasses.Field) -> bool:
    """Returns whether None is a value of a field, by its type."""
    return field.type in (Any, None, NoneType) or NoneType in typing.get_args(field.type)


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Raises a `ValueError` if a value, or one of a list, is not allowed by what declares its field."""
    check_number(field, value)
    least = field.metadata.get("least")
    if least is not None and not value >= least:
        raise ValueError(f"--{field.name} must be at least {least}, got {value}.")
    most = field.metadata.get("most")
    if most is not None and not value <= most:
        raise ValueError(f"--{field.name} must be at most {most}, got {value}.")
    above = field.metadata.get("above")
    if above is not None and not value > above:
        raise ValueError(f"--{field.name} must be greater than {above}, got {value}.")
    below = field.metadata.get("below")
    if below is not None and not value < below:
        raise ValueError(f"--{field.name} must be less than {below}, got {value}.")
    choices = field.metadata.get("choices")
    if choices is not None and value not in choices:
        raise ValueError(f"--{field.name} must be one of {', '.join(map(str, choices))}, got {value}.")


def check_number(field: dataclasses.Field, value: Any) -> None:
    """
    Raises a `ValueError` if a field is of numbers, or of true or false, and a value, or one of a list, is another
    thing, in Python. The string "False" counts as true there.
    """
    element, _ = find_element_type(field)
    if element is bool and not isinstance(value, bool):
        raise ValueError(f"--{field.name} must be True or False, got {value!r}.")
    if element is int and not is_integer(value):
        raise ValueError(f"--{field.name} must be an integer, got {value!r}.")
    if element is float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise ValueError(f"--{field.name} must be a number, got {value!r}.")
    if element is float and not math.isfinite(value):
        raise ValueError(f"--{field.name} must be a finite number, got {value}.")


def check_folder(argument: str, path: Path) -> None:
    """Raises a `ValueError` if a folder cannot be made since it, or one that it is in, is a file."""
    existing = find_existing(path)
    if existing is None:
        raise ValueError(f"--{argument} {path} is on a drive that is not there. Name another folder.")
    if not existing.is_dir():
        raise ValueError(f"--{argument} {path} cannot be used: {existing} is a file. Name a folder.")


def find_existing(path: Path) -> Path | None:
    """Returns a path, or else the nearest folder above it that is there; None if its drive is not (on Windows)."""
    for candidate in (path, *path.absolute().parents):
        if candidate.exists():
            return candidate
    return None


def get_default(field: dataclasses.Field) -> Any:
    """Returns the default of a field, `MISSING` where it has none."""
    if field.default_factory is MISSING:
        return field.default
    return field.default_factory()


def check_combinations(arguments: Iterable[Arguments]) -> None:
    """Raises a `ValueError` if arguments, given together, lack one that they require, or exclude each other."""
    known = set()
    given = {}
    for group in arguments:
        for field in fields(group):
            known.add(field.name)
            if getattr(group, field.name) != get_default(field):
                given[field.name] = field.metadata
    for name, metadata in given.items():
        required = metadata.get("requires")
        if required in known and required not in given:
            raise ValueError(f"--{name} has no effect without --{required}: add --{required}, or leave out --{name}.")
        for other in metadata.get("excludes", ()):
            if other in given:
                names = "/".join([f"--{other}", *given[other].get("aliases", ())])
                raise ValueError(f"--{name} excludes {names}: leave out one of them.")


def check_output_file(path: Path | None, endings: tuple[str, ...] = (".json",)) -> None:
    """Raises a `ValueError` if an `--output_file` has another ending or cannot be written, before the work for it."""
    if path is None:
        return
    if path.suffix not in endings:
        listed = endings[-1]
        if len(endings) > 1:
            listed = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise ValueError(f"--output_file {path} must end in {listed}.")
    folder = find_existing(path.absolute().parent)
    if folder is None:
        raise ValueError(f"--output_file {path} cannot be written: its drive is not there.")
    if path.is_dir():
        raise ValueError(f"--output_file {path} is a folder: name a file in it, or another one.")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--output_file {path} cannot be written: {folder} is not a writable folder. Name another.")


def list_named_files(arguments: Iterable[Arguments]) -> list[tuple[str, str]]:
    """Lists the files on this machine that arguments other than `--output_file` name, with the argument of each."""
    named = []
    for group in arguments:
        for field in fields(group):
            value = getattr(group, field.name)
            values = value if isinstance(value, (list, tuple)) else [value]
            paths = [os.fspath(one) for one in values if isinstance(one, (str, Path))]
            if field.name in PATTERN_ARGUMENTS:
                # a name with brackets is a pattern, too, which does not match it
                paths += chain.from_iterable(glob(pattern, recursive=True) for pattern in paths.copy())
            if field.name != "output_file":
                named += [(field.name, path) for path in paths if os.path.isfile(path)]
    return named


def check_output_is_no_input(arguments: Iterable[Arguments]) -> None:
    """Raises a `ValueError` if an `--output_file` is a file that another argument names, which it would replace."""
    arguments = list(arguments)
    for output_file in [getattr(group, "output_file", None) for group in arguments]:
        if output_file is None or not output_file.is_file():
            continue
        for name, path in list_named_files(arguments):
            if os.path.samefile(path, output_file):
                raise ValueError(f"--output_file {output_file} is what --{name} names: name another file.")


def refuse_given(
    arguments: Arguments,
    names: Iterable[str],
    case: str,
    remedy: str = "leave it out",
) -> None:
    """
    Refuses arguments that have no effect in a case: see also `requires` of [`argument`].

    Args:
        arguments ([`Arguments`]): Those of a command.
        names (`Iterable[str]`): Which of them have no effect.
        case (`str`): The case, in words that follow "has no effect", such as "with --only texts".
        remedy (`str`, *optional*, defaults to `"leave it out"`): What to do.

    Raises:
        `ValueError`: if one of them was given.
    """
    for field in fields(arguments):
        if field.name in names and getattr(arguments, field.name) != get_default(field):
            raise ValueError(f"--{field.name} has no effect {case}: {remedy}.")


def list_groups(arguments: Iterable[type]) -> dict[str, list[dataclasses.Field]]:
    """Lists the fields of dataclasses, with resolved types, by the titles of groups of the declaring classes."""
    groups = {}
    for cls in arguments:
        types = typing.get_type_hints(cls)
        for field in fields(cls):
            owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
            field.type = types[field.name]
            groups.setdefault(getattr(owner, "_argument_group_name", "other"), []).append(field)
    return groups


def describe_default(field: dataclasses.Field) -> str:
    """Describes the default of a field for the help, with nothing where the text of the help has it."""
    default = get_default(field)
    if default is MISSING:
        return "(required)"
    if default in (None, False, [], "") or "default" in field.metadata["help"].lower():
        return ""
    if isinstance(default, list):
        default = " ".join(map(str, default))
    return f"(default: {default})"


def find_element_type(field: dataclasses.Field) -> tuple[Any, bool]:
    """Finds the type of the values of a field, but for None, and whether it is a list of them."""
    parts = typing.get_args(field.type) or (field.type,)  # those of a union, or of a list
    first = next(part for part in parts if part is not NoneType)
    if typing.get_origin(first) is list:
        return typing.get_args(first)[0], True
    return first, typing.get_origin(field.type) is list


def make_metavar(field: dataclasses.Field) -> str:
    """Makes what stands for the value of a field in `--help`."""
    metadata = field.metadata
    element, is_list = find_element_type(field)
    metavar = field.name.rpartition("_")[2].upper()
    if metadata["metavar"]:
        metavar = metadata["metavar"]
    elif metadata["choices"] is not None:
        metavar = "{" + ",".join(map(str, metadata["choices"])) + "}"
    elif element in (int, float):
        metavar = "N"
    if is_list:
        metavar += " ..."
    return metavar


def list_options(field: dataclasses.Field) -> list[tuple[str, Any, Any]]:
    """Lists the name, annotated type and default of a field for tyro; of a flag that may be None, of `no_` too."""
    metadata = field.metadata
    default = get_default(field)
    element, is_list = find_element_type(field)
    options = {"help": metadata["help"], "help_behavior_hint": describe_default(field)}
    if metadata["aliases"]:
        options["aliases"] = metadata["aliases"]
    if element is bool:
        flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(**options)]
        if default is not None:
            return [(field.name, flag, False)]
        options["help"] = f"The opposite of --{field.name}."
        opposite = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(**options)]
        return [(field.name, flag, False), (f"no_{field.name}", opposite, False)]
    value_type = field.type
    if metadata["choices"] is not None:
        value_type = Literal[tuple(metadata["choices"])]
        if is_list:
            value_type = list[value_type]
        if default is None:
            value_type = value_type | None
    value_type = Annotated[value_type, tyro.conf.arg(metavar=make_metavar(field), **options)]
    if metadata["positional"]:
        value_type = Annotated[value_type, tyro.conf.Positional]
    return [(field.name, value_type, default)]


def to_tyro(arguments: Iterable[type]) -> type:
    """Makes a dataclass of all arguments in groups, which tyro makes a parser of."""
    groups = []
    for title, members in list_groups(arguments).items():
        options = []
        for field in members:
            for name, value_type, default in list_options(field):
                if isinstance(default, list):
                    member = dataclasses.field(default_factory=default.copy)
                else:
                    member = dataclasses.field(default=default)
                options.append((name, value_type, member))
        name = title.replace(" ", "_")
        groups.append((name, dataclasses.make_dataclass(name, options, kw_only=True)))
    return dataclasses.make_dataclass("parsed", groups)


def check_lists(arguments: Iterable[type], args: list[str]) -> None:
    """Raises a `ValueError` if a list is given twice, of which the parser would use the last."""
    given = [arg.partition("=")[0].lstrip("-").replace("-", "_") for arg in args if arg.startswith("--")]
    for field in list_fields(arguments):
        if field.default_factory is MISSING and "list[" not in str(field.type):
            continue
        names = [name.lstrip("-") for name in (field.name, *field.metadata["aliases"])]
        if sum(map(given.count, names)) > 1:
            raise ValueError(f"--{field.name} is given twice: name all its values after one of them.")


def list_fields(arguments: Iterable[type]) -> list[dataclasses.Field]:
    """Lists the fields of dataclasses."""
    found = []
    for cls in arguments:
        found += fields(cls)
    return found


def parse(
    arguments: tuple[type[Arguments], ...],
    args: list[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
) -> tuple:
    """
    Makes an object of each dataclass of arguments from a command line. A mistake there ends the program with status 2
    and a message on standard error.

    Args:
        arguments (`tuple[type[Arguments], ...]`):
            The dataclasses. No two fields have the same name.
        args (`list[str]`, *optional*):
            The words of the command line. Default: those of the process.
        prog (`str`, *optional*):
            The name of the program in messages. Default: that of the process.
        description (`str`, *optional*):
            What `--help` says of the program.

    Returns:
        `tuple`: the objects, in the order of the dataclasses.

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
        # all help is given: searching the comments of sources for it takes a third of the time
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone, tyro.conf.HelptextFromCommentsOff),
    )
    values = {}
    for group in vars(parsed).values():
        values |= vars(group)
    with exit_on_error(prog):
        check_lists(arguments, args)
        for field in list_fields(arguments):
            values[field.name] = resolve_value(field, values)
        objects = []
        for cls in arguments:
            objects.append(cls(**{field.name: values[field.name] for field in fields(cls)}))
        check_combinations(objects)
        check_output_is_no_input(objects)
    return tuple(objects)


def resolve_value(field: dataclasses.Field, values: dict[str, Any]) -> Any:
    """
    Finds the value of a field among those of the parser. A flag that may be None has two there, its own and that of
    `no_`. Raises a `ValueError` if both are given, or a list without values.
    """
    value = values[field.name]
    opposite = f"no_{field.name}"
    if opposite in values and get_default(field) is None:
        if value and values[opposite]:
            raise ValueError(f"--{field.name} excludes --{opposite}: leave out one of them.")
        if value:
            return True
        return False if values[opposite] else None
    if value == [] and get_default(field) != []:
        raise ValueError(f"--{field.name} has no value: name one or more, or leave it out.")
    return value


def is_output_closed() -> bool:
    """
    Says, after a `BrokenPipeError`, whether nobody reads the output of this process any more. If somebody does, it is
    another pipe that broke, such as that to a worker which was killed.
    """
    if not hasattr(select, "poll"):  # Windows, where it is not said
        return True
    poll = select.poll()
    for output in (1, 2):
        poll.register(output, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextmanager
def exit_on_error(prog: str) -> Iterator[None]:
    """
    Ends a program after an error with one line on standard error and status 2, after Ctrl-C with status 130. The
    traceback is shown where the environment says `LOTLIP_DEBUG=1`.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"{prog}: interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # of whichever library: what it says is for the user
        # who reads the output, such as `head`, has seen enough
        has_no_reader = isinstance(error, BrokenPipeError) and is_output_closed()
        if has_no_reader or os.environ.get("LOTLIP_DEBUG") == "1":
            raise
        line = f"{prog}: error: {' '.join(str(error).split()) or type(error).__name__}"
        print(line, file=sys.stderr)
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun repeats the cause at its end
            with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w", encoding="utf-8") as file:
                json.dump({"message": line, "timestamp": int(time.time())}, file)
        sys.exit(2)
