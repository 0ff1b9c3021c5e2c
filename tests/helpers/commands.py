"""Runs `lotlip` in this process, or waits for what it says in another one."""

import json
import re
from multiprocessing import Process
from pathlib import Path

import lotlip
from tests.helpers.waiting import wait_until


def to_argv(command: str, *arguments: object, **options: object) -> list[str]:
    """The words of a command line."""
    argv = [command, *map(str, arguments)]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    return argv


def run_command(name: str, output_file: Path, *arguments: object) -> dict:
    """The JSON results of a command on the CPU."""
    status = lotlip.main(to_argv(name, "--device", "cpu", "--output_file", output_file, *arguments))
    assert status == 0
    return json.loads(output_file.read_text())


def read_error(capsys, name: str, *arguments: object) -> str:
    """The one line that a command says to a mistake, after which it ends with status 2."""
    capsys.readouterr()
    try:
        status = lotlip.main([name, *map(str, arguments)])
    except SystemExit as error:
        status = error.code
    assert status == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"lotlip {name}: error: ")
    return line


def wait_for_line(process: Process, log: Path, pattern: str) -> str:
    """What a pattern finds in the log of a process, as soon as it is there."""

    def read_log() -> str:
        if not log.exists():
            return ""
        return log.read_text()

    def has_line_or_ended() -> bool:
        return re.search(pattern, read_log()) is not None or not process.is_alive()

    wait_until(has_line_or_ended, read_log, pause=0.05)
    found = re.search(pattern, read_log())
    assert found, read_log()
    return found[0]
