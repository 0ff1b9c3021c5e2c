# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Arguments as dataclasses: what a command parses, a script sets and a library function takes is one and the same object.

Nothing here imports torch or transformers until a command line is parsed, so that `--help` answers at once.
"""

import argparse
import copy
import dataclasses
import importlib.util
import inspect
import json
import os
import sys
import time
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any


# The names of precisions that other libraries use, and PyTorch's for each
DTYPES = {name: name for name in ("float32", "float16", "bfloat16")}
DTYPES |= {"fp32": "float32", "no": "float32", "fp16": "float16", "bf16": "bfloat16"}

# What the metadata of a field may say beside the keywords of `argparse`
OWN_METADATA = ("least", "most", "positional", "advanced", "compared_on_resume", "in_model_card")


def argument(
    default: Any = MISSING,
    help: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple | None = None,
    aliases: tuple[str, ...] = (),
    metavar: str | None = None,
    positional: bool = False,
    advanced: bool = False,
    compared_on_resume: bool = False,
    in_model_card: bool = True,
) -> Any:
    """
    A field of a dataclass of arguments.

    Args:
        default (`Any`, *optional*):
            Its default. Without one the argument is required. A list is copied for each object.
        help (`str`, *optional*, defaults to `""`):
            What `--help` says.
        least (`float`, *optional*):
            The least value that is allowed.
        most (`float`, *optional*):
            The largest value that is allowed.
        choices (`tuple`, *optional*):
            The values that are allowed.
        aliases (`tuple[str, ...]`, *optional*):
            Other names of the option, such as `("--model",)`.
        metavar (`str`, *optional*):
            What stands for the value in `--help`.
        positional (`bool`, *optional*, defaults to `False`):
            Whether the argument is given by its place and not by its name.
        advanced (`bool`, *optional*, defaults to `False`):
            Whether `--help` leaves it to `--help-all`.
        compared_on_resume (`bool`, *optional*, defaults to `False`):
            Whether a training can only be resumed with the same value.
        in_model_card (`bool`, *optional*, defaults to `True`):
            Whether the model card of a training lists the value.

    Example:

    ```python
    >>> from dataclasses import dataclass
    >>> from modeling_lotlip.arguments import Arguments, argument

    >>> @dataclass
    ... class SearchArguments(Arguments):
    ...     k: int = argument(10, "Number of results.", least=1)

    >>> SearchArguments(k=3)
    SearchArguments(k=3)
    >>> SearchArguments(k=0)
    Traceback (most recent call last):
    ValueError: --k must be at least 1, got 0.
    ```"""
    metadata = {"help": help.replace("%", "%%"), "aliases": list(aliases)}  # argparse fills in what stands behind a %
    metadata |= {"least": least, "most": most, "positional": positional, "advanced": advanced}
    metadata |= {"compared_on_resume": compared_on_resume, "in_model_card": in_model_card}
    metadata |= {name: value for name, value in {"choices": choices, "metavar": metavar}.items() if value is not None}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Arguments:
    """
    Base class of dataclasses of arguments: checks the choices, least and largest values that the fields declare.

    Raises:
        `ValueError`: if a value is below its least one or above its largest one, or is none of the choices.
    """

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


def check_output_file(path: Path | None, endings: tuple[str, ...] = (".json",)) -> None:
    """
    Refuses an `--output_file` before the work that it is to be written after.

    Args:
        path (`Path`, *optional*):
            The file, if there is to be one.
        endings (`tuple[str, ...]`, *optional*, defaults to `(".json",)`):
            Those of the forms that can be written.

    Raises:
        `ValueError`: if its name has another ending, or it cannot be written.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from modeling_lotlip.arguments import check_output_file

    >>> check_output_file(Path("results.csv"))
    Traceback (most recent call last):
    ValueError: --output_file results.csv must end in .json.
    ```"""
    if path is None:
        return
    if path.suffix not in endings:
        named = ", ".join(endings[:-1]) + " or " * (len(endings) > 1) + endings[-1]
        raise ValueError(f"--output_file {path} must end in {named}.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--output_file {path} cannot be written: {folder} takes no files.")


def refuse_given(arguments: Arguments, names: Iterable[str], why: str) -> None:
    """
    Refuses arguments that would be ignored.

    Args:
        arguments (`Arguments`):
            What was given.
        names (`Iterable[str]`):
            The arguments that have no effect; one that has its default counts as not given.
        why (`str`):
            What the message says after the name of the argument.

    Raises:
        `ValueError`: if one of them was given.

    Example:

    ```python
    >>> from modeling_lotlip.arguments import refuse_given
    >>> from modeling_lotlip.data.arguments import EvaluationSplitArguments

    >>> refuse_given(EvaluationSplitArguments(), ["eval_split"], "has no effect on a benchmark: leave it out.")
    >>> refuse_given(EvaluationSplitArguments("train"), ["eval_split"], "has no effect on a benchmark: leave it out.")
    Traceback (most recent call last):
    ValueError: --eval_split has no effect on a benchmark: leave it out.
    ```"""
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(arguments)
    }
    for name in names:
        if getattr(arguments, name) != defaults[name]:
            raise ValueError(f"--{name} {why}")


class HelpAll(argparse.Action):
    """The option `--help-all`: prints the help with the advanced arguments, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.is_advanced_shown = True
        parser.print_help()
        parser.exit()


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows a description as it is written, and the default of each argument that does not tell it in words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        if action.nargs == 0 or default in (None, [], argparse.SUPPRESS) or "default" in action.help.lower():
            return action.help
        text = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{action.help.rstrip('.')} (default: {text.replace('%', '%%')})."

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        """A number as N, else the last word of the name: NAME for `--dataset_name`."""
        return "N" if action.type in (int, float) else action.dest.rpartition("_")[2].upper()

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = copy.copy(action)
        # each name is understood with hyphens too, which would be shown twice
        shown.option_strings = [name for name in action.option_strings if "-" not in name.lstrip("-")]
        return super()._format_action_invocation(shown if shown.option_strings else action)


def argument_parser(arguments: tuple[type, ...], **options: Any) -> argparse.ArgumentParser:
    """
    transformers' `HfArgumentParser` for dataclasses of arguments, whose `parse_args_into_dataclasses` gives one object
    of each. It also knows positional arguments, and errors are one line.

    Args:
        arguments (`tuple[type, ...]`):
            The dataclasses.
        options (`dict`, *optional*):
            Of `argparse.ArgumentParser`, such as `prog` and `description`.

    Example:

    ```python
    >>> from dataclasses import dataclass
    >>> from modeling_lotlip.arguments import Arguments, argument, argument_parser

    >>> @dataclass
    ... class SearchArguments(Arguments):
    ...     text: str = argument(help="A text.", positional=True)
    ...     k: int = argument(10, "Number of results.", least=1)

    >>> argument_parser((SearchArguments,)).parse_args_into_dataclasses(["a red boat", "--k", "3"])
    (SearchArguments(text='a red boat', k=3),)
    ```"""

    class Parser(_hf_argument_parser()):
        is_parsing = False
        is_advanced_shown = False

        def _add_dataclass_arguments(self, dtype: type) -> None:
            """Each field in the group of the class that declares it, which may be a base of the dataclass."""
            types, groups = typing.get_type_hints(dtype), {}
            for field in fields(dtype):
                owner = next(cls for cls in dtype.__mro__ if field.name in inspect.get_annotations(cls))
                title = getattr(owner, "_argument_group_name", None)
                if title is not None and title not in groups:
                    description = getattr(owner, "_argument_group_description", None)
                    groups[title] = self.add_argument_group(title, description=description)
                field.type = types[field.name]
                self._parse_dataclass_field(groups.get(title, self), field)

        @staticmethod
        def _parse_dataclass_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
            field = copy.copy(field)
            own = {name: field.metadata[name] for name in OWN_METADATA if name in field.metadata}
            field.metadata = {name: value for name, value in field.metadata.items() if name not in own}
            if own.get("positional"):
                add_positional(parser, field)
            elif field.type in (bool, bool | None):
                add_flag(parser, field)
            else:
                if str(field.type).startswith("list") and field.default_factory is MISSING:
                    field.metadata["action"] = "extend"  # `--x a b` and `--x a --x b` are the same
                super(Parser, Parser)._parse_dataclass_field(parser, field)
            for action in parser._actions:
                if action.dest == field.name:
                    action.advanced = own.get("advanced", False)

        def format_help(self) -> str:
            """The common arguments by group, or all of them."""
            formatter = self._get_formatter()
            formatter.add_usage(self.usage, self._actions, [])
            formatter.add_text(self.description)
            num_left_out = 0
            for group in self._action_groups:
                shown = [
                    action
                    for action in group._group_actions
                    if self.is_advanced_shown or not getattr(action, "advanced", False)
                ]
                num_left_out += len(group._group_actions) - len(shown)
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(shown)
                formatter.end_section()
            if num_left_out:
                formatter.add_text(f"{num_left_out} more arguments: --help-all")
            return formatter.format_help()

        def add_argument_group(self, title: str, **options: Any) -> argparse._ArgumentGroup:
            groups = [group for group in self._action_groups if group.title == title]
            return groups[0] if groups else super().add_argument_group(title, **options)

        def parse_args_into_dataclasses(self, args: list[str] | None = None) -> tuple:
            return super().parse_args_into_dataclasses(args, look_for_args_file=False)

        def parse_known_args(self, args: list[str] | None = None, namespace: object = None) -> tuple[object, list]:
            """Arguments without names may stand in several places, between options; what is unknown is an error."""
            if self.is_parsing:  # `parse_known_intermixed_args` calls this method
                return super().parse_known_args(args, namespace)
            self.is_parsing = True
            namespace, unknown = self.parse_known_intermixed_args(args, namespace)
            self.is_parsing = False
            if unknown:
                self.error(f"unrecognized arguments: {' '.join(unknown)}")
            return namespace, unknown

        def error(self, message: str) -> None:
            self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    parser = Parser(arguments, **{"formatter_class": HelpFormatter, "allow_abbrev": False} | options)
    if any(getattr(action, "advanced", False) for action in parser._actions):
        parser.add_argument("--help-all", action=HelpAll, nargs=0, dest=argparse.SUPPRESS, help="Show all arguments.")
    # without the list of all options, which follows
    places = [
        parser._get_formatter()._format_args(action, action.dest.upper())
        for action in parser._get_positional_actions()
    ]
    parser.usage = " ".join(["%(prog)s", *places, "[options]"])
    return parser


def parse(arguments: tuple[type, ...], args: list[str] | None = None, **options: Any) -> tuple:
    """
    An object of each dataclass of arguments, from the command line. A mistake there ends the program with one line on
    standard error and status 2. `args` and `options` are those of `argparse`.
    """
    parser = argument_parser(arguments, **options)
    try:
        return parser.parse_args_into_dataclasses(args)
    except ValueError as error:
        parser.error(str(error))


@contextmanager
def report_mistakes(prog: str) -> Iterator[None]:
    """
    Ends a program after a mistake of its user: with one line on standard error, and status 2. The traceback is shown
    where the environment says `LOTLIP_DEBUG=1`.

    Args:
        prog (`str`):
            The name of the program.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("LOTLIP_DEBUG") == "1":
            raise
        message = f"{prog}: error: {' '.join(str(error).split()) or type(error).__name__}"
        print(message, file=sys.stderr)
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun repeats the cause at its end
            with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w", encoding="utf-8") as file:
                json.dump({"message": message, "timestamp": int(time.time())}, file)
        sys.exit(2)


def add_positional(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """A positional argument: one value, several if the field is a list, and none if it has a default."""
    is_list = str(field.type).startswith("list")
    is_optional = field.default is not MISSING or field.default_factory is not MISSING
    nargs = ("*" if is_optional else "+") if is_list else "?" if is_optional else None
    options = {"help": field.metadata["help"], "nargs": nargs}
    options |= {name: field.metadata[name] for name in ("metavar", "choices") if name in field.metadata}
    if is_optional:
        options["default"] = field.default_factory() if field.default is MISSING else field.default
    element = getattr(field.type, "__args__", (field.type,))[0]
    parser.add_argument(field.name, type=element, **options)


def add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """A flag without value; `--no_...` where the default is not False."""
    names = [f"--{field.name}", *field.metadata.get("aliases", [])]
    options = {"dest": field.name, "help": field.metadata["help"], "default": field.default}
    parser.add_argument(*with_hyphens(names), action="store_true", **options)
    if field.default is not False:
        options["help"] = f"The opposite of --{field.name}."
        parser.add_argument(*with_hyphens([f"--no_{field.name}"]), action="store_false", **options)


def with_hyphens(names: list[str]) -> list[str]:
    """Names of options, each also with hyphens instead of underscores."""
    hyphened = ["--" + name.removeprefix("--").replace("_", "-") for name in names]
    return list(dict.fromkeys(names + hyphened))


def _hf_argument_parser() -> type[argparse.ArgumentParser]:
    """
    `HfArgumentParser`. Where transformers is not imported yet its one file is loaded alone, which is faster.
    """
    if "transformers" in sys.modules:
        from transformers import HfArgumentParser

        return HfArgumentParser
    (folder,) = importlib.util.find_spec("transformers").submodule_search_locations
    spec = importlib.util.spec_from_file_location("hf_argparser", f"{folder}/hf_argparser.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hf_argparser"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module.HfArgumentParser
