"""Dataclasses of arguments, and what a command line makes of them."""

import json
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from modeling_lotlip.utils import arguments
from modeling_lotlip.utils.arguments import (
    Arguments,
    argument,
    check_combinations,
    check_output_file,
    describe_default,
    exit_on_error,
    is_output_closed,
    make_metavar,
    parse,
    refuse_given,
)


@dataclass
class TowerArguments(Arguments):
    freeze: bool | None = argument(None, "Freeze.")
    cache: bool = argument(False, "Cache.")
    cache_dir: Path | None = argument(None, "Where.", requires="cache")
    sizes: list[int] | None = argument(None, "Sizes.", least=1)
    objective: str = argument("lotlip", "Which.", choices=("lotlip", "clip"))
    steps: int | None = argument(None, "How many.", excludes=("epochs",))


@dataclass
class LoopArguments(Arguments):
    epochs: int = argument(10, "How many.", aliases=("--passes",))
    rate: float = argument(0.1, "Of learning.", requires="steps")


def parse_line(line: str) -> tuple:
    return parse((TowerArguments, LoopArguments), line.split(), prog="train")


@pytest.mark.parametrize("size", ["8", True])
def test_what_is_no_number_has_no_minimum(size):
    with pytest.raises(ValueError, match=f"--sizes must be an integer, got {size!r}"):
        TowerArguments(sizes=[size])


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("", "freeze", None),
        ("--freeze", "freeze", True),
        ("--no_freeze", "freeze", False),
        ("--no-freeze", "freeze", False),
        ("--sizes 1 2", "sizes", [1, 2]),
        ("--objective clip", "objective", "clip"),
        ("--cache --cache-dir here", "cache_dir", Path("here")),
        ("--steps 3", "steps", 3),
    ],
)
def test_a_command_line_gives_the_value_of_an_argument(line, name, value):
    assert getattr(parse_line(line)[0], name) == value


@pytest.mark.parametrize(
    ("name", "metavar"),
    [("cache_dir", "DIR"), ("sizes", "N ..."), ("objective", "{lotlip,clip}"), ("steps", "N")],
    ids=["last word of the name", "list of numbers", "choices", "number"],
)
def test_the_help_shows_what_kind_of_value_an_argument_takes(name, metavar):
    (field,) = [field for field in fields(TowerArguments) if field.name == name]
    assert make_metavar(field) == metavar


def test_the_help_names_options_as_the_documentation_does(capsys):
    with pytest.raises(SystemExit):
        parse((TowerArguments,), ["--help"])
    shown = capsys.readouterr().out
    assert "--cache_dir DIR" in shown
    assert "--cache-dir" not in shown


@dataclass
class ReaderArguments(Arguments):
    dataset_name: str | None = argument(None, "What is read.")
    data_files: list[str] | None = argument(None, "Files, or patterns.")
    output_file: Path | None = argument(None, "What is written.")


@pytest.mark.parametrize(
    "option", ["--dataset_name rows[1].csv", "--data_files o.csv ro*.csv", "--data_files rows[1].csv"]
)
def test_a_file_that_is_read_is_not_written_over(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows[1].csv"
    file.touch()
    line = f"{option} --output_file {file}"
    with pytest.raises(SystemExit, match="2"):
        parse((ReaderArguments,), line.split(), prog="evaluate")
    name = option.split()[0]
    assert (
        capsys.readouterr().err == f"evaluate: error: --output_file {file} is what {name} names: name another file.\n"
    )


def test_a_file_of_earlier_results_is_written_over(tmp_path):
    (tmp_path / "results.csv").touch()
    line = f"--dataset_name {tmp_path} --output_file {tmp_path}/results.csv"
    (arguments,) = parse((ReaderArguments,), line.split(), prog="evaluate")
    assert arguments.output_file == tmp_path / "results.csv"


def test_an_alias_and_a_negative_number():
    assert parse_line("--steps 1 --rate -0.5")[1].rate == -0.5
    assert parse_line("--passes 3")[1].epochs == 3


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("--freeze --no_freeze", "--freeze excludes --no_freeze"),
        ("--cache_dir here", "--cache_dir has no effect without --cache: add --cache, or leave out --cache_dir."),
        ("--steps 3 --epochs 2", "--steps excludes --epochs/--passes: leave out one of them"),
        ("--rate 1", "--rate has no effect without --steps"),
        ("--sizes 1 --sizes 2", "--sizes is given twice"),
        ("--sizes", "--sizes has no value"),
        ("--sizes 0", "--sizes must be at least 1, got 0"),
    ],
)
def test_what_would_be_ignored_is_refused(line, error, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_line(line)
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith(f"train: error: {error}")
    assert message.count("\n") == 1


def test_messages_begin_with_the_name_of_the_program_without_its_folder(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["folder/mine.py", "--sizes", "0"])
    with pytest.raises(SystemExit):
        parse((TowerArguments,))
    assert capsys.readouterr().err.startswith("mine.py: error: --sizes must be at least 1")


@pytest.mark.parametrize(
    ("cls", "name", "value", "message"),
    [
        (TowerArguments, "steps", "8", "--steps must be an integer, got '8'"),
        (TowerArguments, "steps", True, "--steps must be an integer, got True"),
        (TowerArguments, "sizes", [4, 2.5], "--sizes must be an integer, got 2.5"),
        (LoopArguments, "rate", "0.5", "--rate must be a number, got '0.5'"),
        (LoopArguments, "rate", True, "--rate must be a number, got True"),
    ],
)
def test_what_is_no_number_is_refused_in_python(cls, name, value, message):
    with pytest.raises(ValueError, match=message):
        cls(**{name: value})


def test_numbers_of_numpy_are_numbers():
    tower = TowerArguments(sizes=[np.int32(4)], steps=np.int64(8))
    assert tower.sizes == [4]
    assert tower.steps == 8
    assert LoopArguments(rate=np.float32(0.5)).rate == 0.5


def test_combinations_hold_in_python_too():
    with pytest.raises(ValueError, match="--cache_dir has no effect without --cache"):
        TowerArguments(cache_dir=Path("here"))
    with pytest.raises(ValueError, match="--steps excludes --epochs"):
        check_combinations([TowerArguments(steps=1), LoopArguments(epochs=3)])


def test_an_output_on_a_drive_that_is_not_there_is_refused(monkeypatch):
    """Of Windows, where no folder above it is there either."""

    @dataclass
    class Output(Arguments):
        output_dir: Path | None = argument(None, "Where.")

    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(ValueError, match="--output_dir Z:/out is on a drive that is not there. Name another folder."):
        Output(Path("Z:/out"))
    with pytest.raises(ValueError, match="--output_file Z:/out.json cannot be written: its drive is not there."):
        check_output_file(Path("Z:/out.json"))


def test_an_output_file_that_is_a_folder_or_lies_in_a_file_is_refused(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    check_output_file(tmp_path / "new" / "out.json")
    with pytest.raises(ValueError, match="--output_file .*folder.json is a folder: name a file in it"):
        check_output_file(tmp_path / "folder.json")
    with pytest.raises(
        ValueError, match=r"out.json cannot be written: .*file is not a writable folder\. Name another"
    ):
        check_output_file(tmp_path / "file" / "out.json")


def test_a_broken_pipe_is_an_error_if_the_output_is_read(monkeypatch, capsys):
    monkeypatch.setattr(arguments, "is_output_closed", lambda: False)
    with pytest.raises(SystemExit) as ended, exit_on_error("lotlip embed"):
        raise BrokenPipeError("Broken pipe")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "lotlip embed: error: Broken pipe\n"


def test_a_broken_pipe_is_no_error_if_nobody_reads_the_output(monkeypatch):
    monkeypatch.setattr(arguments, "is_output_closed", lambda: True)
    with pytest.raises(BrokenPipeError), exit_on_error("lotlip embed"):
        raise BrokenPipeError("Broken pipe")


def test_an_output_without_a_reader_is_closed():
    reading, writing = os.pipe()
    os.close(reading)
    output = os.dup(1)
    os.dup2(writing, 1)
    try:
        is_closed = is_output_closed()
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(writing)
    assert is_closed


@dataclass
class BoundedArguments(Arguments):
    fraction: float = argument(0.5, "Of the rows.", least=0, most=1)
    rate: float = argument(0.5, "Of steps.", above=0, below=1)
    weights: list[float] = argument([1.0], "Of files.")
    is_sorted: bool = argument(False, "Whether they are.")
    is_shown: bool | None = argument(None, "Whether they are.")
    order: str = argument("old", "Which.", choices=("old", "new"))
    names: list[str] = argument(["a"], "Of files.", choices=("a", "b"))


@pytest.mark.parametrize("fraction", [0, 1])
def test_a_value_may_be_the_minimum_or_the_maximum(fraction):
    assert BoundedArguments(fraction=fraction).fraction == fraction


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fraction": -0.1}, "--fraction must be at least 0, got -0.1."),
        ({"fraction": 1.1}, "--fraction must be at most 1, got 1.1."),
        ({"rate": 0}, "--rate must be greater than 0, got 0."),
        ({"rate": 1}, "--rate must be less than 1, got 1."),
        ({"fraction": float("nan")}, "--fraction must be a finite number, got nan."),
        ({"weights": [1.0, float("inf")]}, "--weights must be a finite number, got inf."),
        ({"is_sorted": "False"}, "--is_sorted must be True or False, got 'False'."),
        ({"is_shown": 0}, "--is_shown must be True or False, got 0."),
        ({"is_sorted": None}, "--is_sorted must not be None: give a value, or leave it out for its default."),
        ({"order": None}, "--order must not be None: give a value, or leave it out for its default."),
        ({"order": "newest"}, "--order must be one of old, new, got newest."),
        ({"names": ["a", "c"]}, "--names must be one of a, b, got c."),
    ],
    ids=[
        "below",
        "above",
        "the bound below",
        "the bound above",
        "no number",
        "infinity in a list",
        "a string for a flag",
        "an integer for a flag",
        "none for a flag",
        "none for a choice",
        "no choice",
        "no choice in a list",
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_python_too(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        BoundedArguments(**values)


@pytest.mark.parametrize("is_shown", [None, True, False])
def test_a_flag_may_be_what_its_type_says(is_shown):
    assert BoundedArguments(is_shown=is_shown).is_shown is is_shown


def test_a_list_of_one_object_is_not_that_of_another():
    BoundedArguments().names.append("b")
    assert BoundedArguments().names == ["a"]


def test_what_has_no_effect_in_a_case_is_refused_only_if_it_was_given():
    refuse_given(BoundedArguments(order="new"), ("fraction", "names"), "on scenes")
    with pytest.raises(ValueError, match="^--fraction has no effect on scenes: leave it out.$"):
        refuse_given(BoundedArguments(fraction=0.1), ("fraction", "names"), "on scenes")


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        (argument(help="Which."), "(required)"),
        (argument(None, "Which."), ""),
        (argument(False, "Whether."), ""),
        (argument([], "Which."), ""),
        (argument(3, "How many. Default: three."), ""),
        (argument(3, "How many."), "(default: 3)"),
        (argument([1, 2], "How many."), "(default: 1 2)"),
    ],
    ids=["none", "None", "flag", "empty list", "in the text", "number", "list"],
)
def test_the_help_shows_the_default_that_its_text_does_not_have(declared, shown):
    assert describe_default(declared) == shown


@pytest.mark.parametrize(
    ("endings", "message"),
    [((".json",), "must end in .json."), ((".json", ".csv", ".md"), "must end in .json, .csv or .md.")],
)
def test_an_output_file_of_another_ending_is_refused_with_those_that_are_known(endings, message):
    check_output_file(Path("out.json"), endings)
    with pytest.raises(ValueError, match=f"^--output_file out.txt {message}$"):
        check_output_file(Path("out.txt"), endings)


@pytest.mark.parametrize("name", ["file", "file/deeper/folder"])
def test_an_output_folder_in_a_file_is_refused(tmp_path, name):
    @dataclass
    class Output(Arguments):
        output_dir: Path | None = argument(None, "Where.")

    (tmp_path / "file").touch()
    assert Output(tmp_path / "new" / "folder").output_dir == tmp_path / "new" / "folder"
    with pytest.raises(ValueError, match=f"--output_dir {tmp_path}/{name} cannot be used: {tmp_path}/file is a file"):
        Output(tmp_path / name)


def test_an_error_without_words_is_named_by_its_type(capsys):
    with pytest.raises(SystemExit), exit_on_error("lotlip embed"):
        raise ValueError
    assert capsys.readouterr().err == "lotlip embed: error: ValueError\n"


def test_an_error_of_several_lines_is_shown_in_one_and_kept_for_torchrun(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit), exit_on_error("lotlip train"):
        raise RuntimeError("no\n  memory")
    assert capsys.readouterr().err == "lotlip train: error: no memory\n"
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "lotlip train: error: no memory"
