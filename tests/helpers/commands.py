"""Runs `lotlip` in this process, or waits for what it says in another one."""

import json
import re
import time
from multiprocessing import Process
from pathlib import Path

import lotlip


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
    deadline = time.monotonic() + 300
    while True:
        is_alive = process.is_alive()
        text = ""
        if log.exists():
            text = log.read_text()
        found = re.search(pattern, text)
        if found:
            return found[0]
        assert is_alive, text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
