# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The command `lotlip` or `python -m lotlip`: parses its arguments, then runs `modeling_lotlip/commands/COMMAND.py`.

How it starts fast. `import modeling_lotlip` registers every class with the Auto classes, as it promises, so it
imports torch and transformers, which takes seconds. `--help`, a completion and the report of a wrong argument need
neither: what they need, `modeling_lotlip/commands/` and the `arguments.py` of each room, imports nothing heavy. But
Python runs the `__init__` of a package before any module in it. So this module stands beside the package, and while
it parses, an empty module stands for the package (see [`package_not_initialized`]): it knows where the modules are,
and has not run `__init__`. It is taken away before the command runs, which then imports the package as everybody
does. The other way, a second package for the command line, would part the arguments of each room from the code that
they are of.
"""

import errno
import gc
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


PACKAGE = "modeling_lotlip"
SHELLS = ("bash", "zsh", "fish", "tcsh")
# Errors of an output that nobody reads any more, such as `head` that has seen enough; the last one on Windows
NO_READER = (errno.EPIPE, errno.EINVAL)
# The exit status where nobody read the output any more before the command was done: as of SIGPIPE
ENDED_BY_PIPE = 141


@contextmanager
def package_not_initialized() -> Iterator[None]:
    """Inside, modules of the package can be imported without running its `__init__`, which imports torch."""
    if PACKAGE in sys.modules:
        yield
        return
    sys.modules[PACKAGE] = importlib.util.module_from_spec(importlib.util.find_spec(PACKAGE))
    try:
        yield
    finally:
        del sys.modules[PACKAGE]


def import_package() -> None:
    """
    Imports the package, which registers LoTLIP with the Auto classes. The hundreds of thousands of objects that torch
    and transformers make meanwhile live as long as the process, and the garbage collector does not look for garbage
    among them. A whole command takes 2.9 s with that and 4.2 s without (`examples/benchmarks/startup.py`).
    """
    gc.disable()
    try:
        importlib.import_module(PACKAGE)
    finally:
        gc.enable()
    gc.freeze()


def describe(commands: dict[str, str]) -> str:
    """Formats what `lotlip --help` prints."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {help}" for name, help in commands.items()]
    return "\n".join(
        [
            "usage: lotlip COMMAND ...",
            "",
            "LoTLIP: images and long texts.",
            "",
            *lines,
            "",
            "`lotlip COMMAND --help` lists the arguments.",
            "`lotlip --print-completion bash` (or zsh, fish, tcsh) prints a completion script: see its comments.",
        ]
    )


def print_completion(shell: str = "bash") -> int:
    """
    Prints a script by which a shell completes commands and their options. Returns the exit status.

    Args:
        shell (`str`, *optional*, defaults to `"bash"`):
            `"bash"`, `"zsh"`, `"fish"` or `"tcsh"`.
    """
    from typing import Annotated, Union

    import tyro

    from modeling_lotlip.commands import COMMANDS
    from modeling_lotlip.utils.arguments import to_tyro

    if shell not in SHELLS:
        print(f"lotlip: error: --print-completion {shell} must be one of {', '.join(SHELLS)}.", file=sys.stderr)
        return 2
    parsers = [
        Annotated[
            to_tyro(importlib.import_module(f"modeling_lotlip.commands.{name}").ARGUMENTS),
            tyro.conf.subcommand(name=name, description=help),
        ]
        for name, help in COMMANDS.items()
    ]
    tyro.cli(
        Union[tuple(parsers)],  # noqa: UP007
        prog="lotlip",
        args=["--tyro-print-completion", shell],
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """
    Runs a command.

    Args:
        argv (`list[str]`, *optional*):
            The command and its arguments. Default: those of the process.

    Returns:
        `int`: the exit status: 0, 2 after a mistake of the user, 130 after Ctrl-C, 141 if the command was not done
            when nobody read its output any more.
    """
    if argv is None:
        argv = sys.argv[1:]
    # no results are lost for a letter that a console of Windows, or a file in its encoding, cannot show
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = run(argv)
    except OSError as error:
        if error.errno not in NO_READER or not is_output_closed():
            raise
        status = ENDED_BY_PIPE
    except KeyboardInterrupt:  # before the command has begun, which says so itself
        print("lotlip: interrupted.", file=sys.stderr)
        status = 130
    try:
        sys.stdout.flush()
    except OSError as error:
        # what is left in the buffer must not fail once more at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in NO_READER:
            print(f"lotlip: error: standard output cannot be written: {error.strerror}.", file=sys.stderr)
            return 2
    return status


def is_output_closed() -> bool:
    """Says, after an error of an output, whether nobody reads the output of this process any more."""
    with package_not_initialized():
        from modeling_lotlip.utils import arguments

        return arguments.is_output_closed()


def run(argv: list[str]) -> int:
    """Parses a command line and runs the command. Returns the exit status."""
    if any(argument.partition("=")[0] == "--plugin" for argument in argv):
        import_package()  # a plugin, which the parser asks for what it registers, imports it
    with package_not_initialized():
        from modeling_lotlip.commands import COMMANDS

        if not argv or argv[0] in ("-h", "--help"):
            print(describe(COMMANDS))
            return 0
        name, *args = argv
        if name == "--print-completion":
            return print_completion(*args[:1])
        if name not in COMMANDS:
            print(f"lotlip: error: {name!r} is no command. The commands are {', '.join(COMMANDS)}.", file=sys.stderr)
            return 2
        from modeling_lotlip.utils.arguments import exit_on_error, parse

        command = importlib.import_module(f"modeling_lotlip.commands.{name}")
        arguments = parse(command.ARGUMENTS, args, prog=f"lotlip {name}", description=command.__doc__)

    # in a file or a pipe too, where silence looks like a program that hangs; of several processes one says it
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"lotlip {name}: loading PyTorch ...", file=sys.stderr, flush=True)
    try:
        with exit_on_error(f"lotlip {name}"):
            import_package()
            command.run(*arguments)
    except SystemExit as ended:
        if ended.code in (None, 0):  # no command ends so
            print(
                f"lotlip {name}: error: code of a model or a plugin ended the program too early.",
                file=sys.stderr,
            )
            return 2
        return ended.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
