"""The entry point: what `lotlip` says, at once, and what it does with mistakes."""

import errno
import gc
import importlib
import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

import lotlip
from modeling_lotlip.commands import COMMANDS
from tests.conftest import training_environment


HEAVY = ("torch", "transformers", "datasets", "numpy", "PIL", "pandas", "huggingface_hub")


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=training_environment(), capture_output=True, text=True, timeout=120)


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Runs `lotlip` in a process of its own."""
    return run_python("-m", "lotlip", *arguments)


def test_help_lists_every_command_with_a_line():
    for arguments in ([], ["--help"]):
        done = run(*arguments)
        assert done.returncode == 0
        assert done.stderr == ""
        for name, help in COMMANDS.items():
            assert any(line.split() == [name, *help.split()] for line in done.stdout.splitlines()), name


def test_help_and_mistakes_import_nothing_heavy():
    code = (
        "import contextlib, sys, lotlip\n"
        f"for name in {list(COMMANDS)}:\n"
        "    for option in ('--help', '--no_such_option'):\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            lotlip.main([name, option])\n"
        f"        heavy = [module for module in {HEAVY} if module in sys.modules]\n"
        "        assert not heavy, (name, option, heavy)\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr[-1000:]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as exit:
        lotlip.main([name, "--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: lotlip {name}")
    command = importlib.import_module(f"modeling_lotlip.commands.{name}")
    assert command.__doc__.strip().splitlines()[0] in shown


def test_a_shell_completes_commands_and_options(tmp_path):
    done = run("--print-completion", "bash")
    assert done.returncode == 0
    (tmp_path / "completion").write_text(done.stdout)
    complete = 'source completion; COMP_WORDS=({}); COMP_CWORD={}; _tyro_lotlip; echo "${{COMPREPLY[@]}}"'
    for words, expected in (("lotlip ev", "evaluate"), ("lotlip search --taken_f", "--taken_from")):
        script = complete.format(words, words.count(" "))
        bash = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert bash.stdout.split() == [expected], bash.stderr
    wrong = run("--print-completion", "no-shell")
    assert wrong.returncode == 2
    assert "must be one of bash, zsh" in wrong.stderr


def test_an_unknown_command_names_the_others(capsys):
    status = lotlip.main(["sarch"])
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("lotlip: error: 'sarch' is no command. The commands are search, ")
    assert error.count("\n") == 1


def test_a_mistake_is_a_traceback_for_who_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTLIP_DEBUG", "1")
    with pytest.raises(ValueError, match="`--model_name_or_path .*nowhere` cannot be used"):
        lotlip.main(["evaluate", "--model", str(tmp_path / "nowhere")])


def test_ctrl_c_while_the_package_is_imported_is_said(monkeypatch, capsys):
    def interrupted(name):
        if name == lotlip.PACKAGE:
            raise KeyboardInterrupt
        return importlib.import_module(name)

    monkeypatch.setattr(lotlip, "importlib", SimpleNamespace(import_module=interrupted, util=importlib.util))
    monkeypatch.delitem(sys.modules, lotlip.PACKAGE)
    status = lotlip.main(["statistics"])
    assert status == 130
    assert gc.isenabled()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["lotlip statistics: loading PyTorch ...", "lotlip statistics: interrupted."]


def test_ctrl_c_while_arguments_are_parsed_is_one_line(monkeypatch, capsys):
    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(lotlip, "run", interrupt)
    status = lotlip.main(["search"])
    assert status == 130
    assert capsys.readouterr().err == "lotlip: interrupted.\n"


def test_a_command_says_at_once_what_it_does_also_where_there_is_no_terminal(tmp_path):
    """Before it imports what takes seconds, and past the buffer of its error stream."""
    command = [sys.executable, "-m", "lotlip", "search", str(tmp_path), "a boat"]
    with subprocess.Popen(command, env=training_environment(), stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        process.kill()
    assert line == "lotlip search: loading PyTorch ...\n"


@pytest.mark.parametrize("rank, num_lines", [("0", 1), ("1", 0)])
def test_of_several_processes_one_says_what_all_do(rank, num_lines, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(lotlip, "import_package", lambda: None)
    lotlip.main(["evaluate", "--model", "nowhere"])
    assert capsys.readouterr().err.count("loading PyTorch") == num_lines


def test_letters_that_a_console_cannot_show_are_escaped(monkeypatch):
    """Those of Windows, and files that its shells write, have encodings of their own."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(lotlip, "run", lambda argv: print("café лод") or 0)
    status = lotlip.main([])
    assert status == 0
    assert console.buffer.getvalue().decode("cp1252").strip() == r"café \u043b\u043e\u0434"


def test_a_reader_that_has_seen_enough_is_no_error():
    environment = training_environment() | {"PYTHONUNBUFFERED": "1"}
    command = f"{sys.executable} -m lotlip --help | head -n 1"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "usage: lotlip COMMAND ...\n"
    assert done.stderr == ""


@pytest.mark.parametrize("error_number", [errno.EPIPE, errno.EINVAL], ids=["posix", "windows"])
def test_a_pipe_that_nobody_reads_ends_a_command_without_an_error(error_number, monkeypatch, tmp_path):
    def flush() -> None:
        raise OSError(error_number, "closed")

    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=flush, fileno=file.fileno))
        monkeypatch.setattr(lotlip, "run", lambda argv: 0)
        status = lotlip.main([])
    assert status == 0


@pytest.fixture(params=[errno.EPIPE, errno.EINVAL], ids=["posix", "windows"])
def broken_pipe(monkeypatch, request):
    """A command that ends with an error of a pipe."""

    def fail(argv: list[str]) -> int:
        raise OSError(request.param, "broken")

    monkeypatch.setattr(lotlip, "run", fail)


@pytest.mark.usefixtures("broken_pipe")
def test_a_command_that_ends_as_nobody_reads_its_output_has_not_succeeded(monkeypatch):
    monkeypatch.setattr(lotlip, "is_output_closed", lambda: True)
    status = lotlip.main([])
    assert status == 141


@pytest.mark.usefixtures("broken_pipe")
def test_an_error_of_another_pipe_is_one(monkeypatch):
    monkeypatch.setattr(lotlip, "is_output_closed", lambda: False)
    with pytest.raises(OSError, match="broken"):
        lotlip.main([])


@pytest.mark.parametrize("code", [None, 0])
def test_code_of_others_that_ends_the_program_has_not_done_the_command(code, monkeypatch, capsys):
    def end(*parsed: object) -> None:
        sys.exit(code)

    monkeypatch.setattr(importlib.import_module("modeling_lotlip.commands.evaluate"), "run", end)
    status = lotlip.main(["evaluate", "--model", "any"])
    assert status == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lotlip evaluate: error: code of a model or a plugin ended the program")


def test_results_that_a_full_disk_does_not_take_are_an_error_of_one_line(monkeypatch, tmp_path, capsys):
    def flush() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(flush=flush, fileno=file.fileno))
        monkeypatch.setattr(lotlip, "run", lambda argv: 0)
        status = lotlip.main([])
    assert status == 2
    expected = "lotlip: error: standard output cannot be written: No space left on device.\n"
    assert capsys.readouterr().err == expected


def test_a_disk_that_is_full_is_no_reader_that_has_seen_enough(monkeypatch, tmp_path):
    def fail(argv: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lotlip, "run", fail)
    with pytest.raises(OSError, match="No space left"):
        lotlip.main([])


def test_a_training_keeps_the_memory_that_it_frees():
    code = """
import lotlip, platform, resource
with lotlip.package_not_initialized():
    from modeling_lotlip.commands.train import keep_freed_memory

def count_page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * 8_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, keep, first, after = count_page_faults(), keep_freed_memory(), count_page_faults(), count_page_faults()
assert platform.libc_ver()[0] != "glibc" or after < before / 10, (before, after)
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
