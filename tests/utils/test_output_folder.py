"""Files that are written completely or not at all, and folders that one run writes and a later one continues."""

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from modeling_lotlip.utils.output_folder import (
    HOST,
    OutputFolder,
    atomic_write,
    delete,
    describe_run,
    is_being_written,
    move_files,
    read_stored,
    warn_of_unfinished,
)


# Names that are like those of unfinished files
OF_USERS = ("notes.partial", "download.2024.partial", "table.1.replaced")


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in (".lock", "settings.json"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_written_to_its_end_changes_nothing(tmp_path, kind):
    path = tmp_path / "it"

    def write(target: Path, text: str) -> None:
        if kind == "folder":
            target.mkdir()
        (target / "text" if kind == "folder" else target).write_text(text)

    def read() -> str:
        return (path / "text" if kind == "folder" else path).read_text()

    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:
        write(partial, "half")
        raise KeyboardInterrupt
    assert list_names(tmp_path) == []
    for text in ("first", "second"):
        with atomic_write(path) as partial:
            write(partial, text)
            assert not path.exists() or read() == "first"
    with pytest.raises(OSError, match="full"), atomic_write(path) as partial:
        write(partial, "half")
        raise OSError("full")
    assert read() == "second"
    assert list_names(tmp_path) == ["it"]


def test_the_file_that_a_full_disk_has_no_room_for_is_named(tmp_path):
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/it'"), atomic_write(tmp_path / "it"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list_names(tmp_path) == []


def test_files_are_on_the_disk_before_they_get_their_name_also_by_the_rules_of_windows(tmp_path, monkeypatch):
    """Windows writes only a file back that is open for writing."""
    modes = []

    def note_mode(number: int) -> None:
        modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
        assert not (tmp_path / "it").exists()

    monkeypatch.setattr(os, "fsync", note_mode)
    with atomic_write(tmp_path / "it") as partial:
        partial.mkdir()
        (partial / "text").write_text("a")
        (partial / "more").write_text("b")
    assert modes == [os.O_RDWR, os.O_RDWR]


def test_the_first_error_of_a_disk_that_becomes_read_only_is_told(tmp_path, monkeypatch):
    def refuse(path: Path, **options) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only .*: '.*/it'"), atomic_write(tmp_path / "it") as partial:
        partial.write_text("a")
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "it"))


def test_to_delete_what_is_not_there_asks_nothing_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *args, **options: pytest.fail("it was deleted"))
    delete(tmp_path / "nothing")


def test_a_new_folder_is_deleted_after_an_error_also_by_the_rules_of_windows(tmp_path, monkeypatch):
    """Windows deletes no file that is open, as that of the lock is."""
    folder = OutputFolder(tmp_path / "new")
    delete_folder = shutil.rmtree

    def refuse_while_locked(path: Path) -> None:
        if folder.lock.is_locked:
            raise PermissionError("it is used by another process")
        delete_folder(path)

    monkeypatch.setattr(shutil, "rmtree", refuse_while_locked)
    with pytest.raises(ValueError, match="no such model"), folder:
        raise ValueError("no such model")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_at_once(tmp_path, caplog):
    with OutputFolder(tmp_path / "out", {"seed": 0}):
        with pytest.raises(ValueError, match=f"`--output_dir {tmp_path}/out` is written by process {os.getpid()} on "):
            OutputFolder(tmp_path / "out", {"seed": 1}).__enter__()
        second = OutputFolder(tmp_path / "out", {"seed": 0}, wait=True)
        waiting = threading.Thread(target=second.__enter__)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        assert not second.lock.is_locked
    waiting.join(60)
    assert second.lock.is_locked
    assert not second.is_unfinished
    assert "waiting for it" in caplog.text
    second.__exit__(None)


def test_a_folder_whose_end_cannot_be_noted_is_written_by_nobody(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(FileNotFoundError), folder:
        shutil.rmtree(tmp_path / "out")
    assert not folder.lock.is_locked


def test_the_error_of_a_run_whose_folder_was_deleted_is_told(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(RuntimeError, match="stopped"), folder:
        shutil.rmtree(tmp_path / "out")
        raise RuntimeError("stopped")
    assert not folder.lock.is_locked


def test_other_settings_are_refused_where_there_are_files(tmp_path):
    path = tmp_path / "out"
    settings = {"seed": 0, "files": ("a", Path("b"))}
    with OutputFolder(path, {"seed": 1}):
        pass
    with OutputFolder(path, settings), atomic_write(path / "table") as partial:
        partial.write_text("it")
    for other, message in (
        ({**settings, "seed": 1}, "holds results with seed = 0, this run has 1"),
        ({**settings, "new": 2}, "new = None, this run has 2"),
        ({"seed": 0}, r"files = \['a', 'b'\], this run has None"),
    ):
        with pytest.raises(ValueError, match=message), OutputFolder(path, other):
            pass
    with pytest.raises(ValueError, match="holds results, not shards"), OutputFolder(path, settings, "shards"):
        pass
    stored = read_stored(path)
    assert stored.pop("id")
    assert stored == {"content": "results", "settings": {"seed": 0, "files": ["a", "b"]}, "run": None}
    with OutputFolder(path, settings), OutputFolder(tmp_path / "other"):
        pass
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "settings.json").write_text('{"editor.tabSize": 4}')
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files, not results"), OutputFolder(tmp_path / "theirs"):
        pass


@pytest.mark.parametrize("content", ['{"editor.tabSize": 4}', "[1, 2]", "// mine\n{}", "\xff"])
def test_settings_of_another_program_stay_as_they_are(tmp_path, content):
    (tmp_path / "settings.json").write_text(content, encoding="latin-1")
    with (
        pytest.raises(ValueError, match="holds other files, not results: name another folder"),
        OutputFolder(tmp_path),
    ):
        pass
    assert (tmp_path / "settings.json").read_text(encoding="latin-1") == content


def test_a_run_that_did_not_end_is_known_and_its_leftovers_are_cleared(tmp_path, caplog):
    path = tmp_path / "out"
    with pytest.raises(OSError, match="full"), OutputFolder(path):
        with atomic_write(path / "table") as partial:
            partial.write_text("it")
        raise OSError("full")
    of_model = ("model.99999.lotlip-partial/weights", "model.99999.lotlip-replaced/weights")
    for name in ("other.99999.lotlip-partial", *of_model):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("as a kill leaves it, here between two renames")
    for name in OF_USERS:
        (path / name).write_text("not of a run")
    warn_of_unfinished([path / "table", path / "other"])
    assert caplog.text.count(f"{path} is not complete: process {os.getpid()} on ") == 1
    caplog.clear()
    with OutputFolder(path) as folder:
        assert folder.is_unfinished
        assert list_names(path) == sorted(["model", "table", *OF_USERS])
    with OutputFolder(path) as folder:
        assert not folder.is_unfinished
    with pytest.raises(ValueError), OutputFolder(path):
        raise ValueError("no such model")  # before anything is done
    warn_of_unfinished([path / "table", tmp_path / "elsewhere"])
    assert not caplog.text


def end_early(path: Path, parts: dict[str, int | None]) -> None:
    with pytest.raises(KeyboardInterrupt), OutputFolder(path, parts=parts):
        (path / "changed").write_text(str(parts))
        raise KeyboardInterrupt


def test_a_run_of_other_parts_does_not_complete_one_that_was_ended(tmp_path):
    end_early(tmp_path, {"llava": None, "blip": None})
    runs = [({"other": None}, {"llava": None, "blip": None}), ({"blip": None}, {"llava": None})]
    for parts, left in runs:
        with OutputFolder(tmp_path, parts=parts):
            assert read_stored(tmp_path)["run"]["parts"] == parts | left
        assert read_stored(tmp_path)["run"]["parts"] == left
    end_early(tmp_path, {"git": None})
    assert read_stored(tmp_path)["run"]["parts"] == {"git": None, "llava": None}
    with OutputFolder(tmp_path, parts={"llava": None, "git": None}):
        pass
    assert read_stored(tmp_path)["run"] is None


@pytest.mark.parametrize(
    ("ended", "completed", "is_complete"),
    [(None, 5, False), (10, 5, False), (10, 10, True), (10, 20, True), (10, None, True)],
)
def test_a_run_of_fewer_rows_does_not_complete_one_that_was_ended(tmp_path, ended, completed, is_complete):
    end_early(tmp_path, {"llava": ended})
    with OutputFolder(tmp_path, parts={"llava": completed}):
        pass
    assert (read_stored(tmp_path)["run"] is None) == is_complete
    with OutputFolder(tmp_path, parts={"llava": ended}):
        pass
    assert read_stored(tmp_path)["run"] is None


@pytest.fixture
def name_left(tmp_path):
    """Returns the name of an unfinished file of another process."""

    def name(process: int, name: str = "table", host: str = HOST) -> Path:
        return tmp_path / f"{name}.{process}{host}.lotlip-partial"

    return name


@pytest.fixture
def ended_process() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_file_is_unfinished_under_the_name_of_its_process(tmp_path, name_left):
    with atomic_write(tmp_path / "table") as partial:
        assert partial == name_left(os.getpid())
        partial.touch()


def test_who_writes_a_file_next_clears_what_killed_processes_left_of_it(tmp_path, name_left, ended_process):
    name_left(ended_process).touch()
    name_left(os.getpid()).mkdir()  # of an earlier process by this number
    with atomic_write(tmp_path / "table") as partial:
        assert list_names(tmp_path) == []
        partial.touch()


def test_what_a_killed_process_was_about_to_replace_gets_its_name_back(tmp_path, ended_process):
    replaced = tmp_path / f"table.{ended_process}{HOST}.lotlip-replaced"
    replaced.mkdir()
    with pytest.raises(OSError, match="full"), atomic_write(tmp_path / "table"):
        raise OSError("full")
    assert list_names(tmp_path) == ["table"]


def test_what_is_perhaps_being_written_stays(tmp_path, name_left, ended_process):
    names = [name_left(os.getppid()), name_left(ended_process, host="-01234567"), name_left(ended_process, "table.2")]
    for name in names:
        name.touch()
    with atomic_write(tmp_path / "table") as partial:
        partial.touch()
    assert [name for name in names if not name.exists()] == []


def test_a_process_that_began_after_a_file_was_written_does_not_write_it(tmp_path, name_left):
    """The number of a killed process is that of another one after the computer has started again."""
    left = name_left(os.getppid())
    left.touch()
    began = psutil.Process(os.getppid()).create_time()
    facts = os.stat_result([0] * 7 + [began - 3600] * 3)
    with patch.object(Path, "lstat", lambda path: facts):
        assert not is_being_written(left)
    assert is_being_written(left)


def test_a_process_that_has_ended_but_was_not_waited_for_writes_nothing(name_left):
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    name_left(process.pid).touch()
    assert not is_being_written(name_left(process.pid))
    process.wait()


def test_an_unfinished_file_that_vanishes_is_not_being_written(name_left):
    assert not is_being_written(name_left(os.getppid()))


def test_an_old_folder_that_is_being_replaced_stays(tmp_path):
    """It keeps the time of its last change under its other name."""
    replaced = tmp_path / f"model.{os.getppid()}{HOST}.lotlip-replaced"
    (tmp_path / "model").mkdir()
    os.utime(tmp_path / "model", (0, 0))
    (tmp_path / "model").rename(replaced)
    assert is_being_written(replaced)


def test_an_old_folder_that_is_being_replaced_stays_also_by_the_rules_of_windows(tmp_path, monkeypatch):
    """Windows keeps no time of a change of the name."""
    monkeypatch.setattr(sys, "platform", "win32")
    facts = os.stat_result([0] * 10)
    monkeypatch.setattr(Path, "lstat", lambda path: facts)
    assert is_being_written(tmp_path / f"model.{os.getppid()}{HOST}.lotlip-replaced")


def test_a_file_that_another_process_writes_into_the_folder_of_a_run_stays(tmp_path, name_left, ended_process):
    name_left(os.getppid()).touch()
    name_left(ended_process).touch()
    with OutputFolder(tmp_path):
        assert list_names(tmp_path) == [name_left(os.getppid()).name]


def test_a_file_that_another_process_completes_meanwhile_is_not_of_a_run_that_fails(tmp_path, name_left):
    (tmp_path / "notes.txt").touch()
    name_left(os.getppid()).touch()
    with pytest.raises(ValueError, match="no such model"), OutputFolder(tmp_path):
        name_left(os.getppid()).rename(tmp_path / "table")
        raise ValueError("no such model")
    assert read_stored(tmp_path) is None


def test_a_new_folder_that_another_process_writes_into_stays(tmp_path, name_left):
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match="no such model"), OutputFolder(folder):
        (folder / name_left(os.getppid()).name).touch()
        raise ValueError("no such model")
    assert list_names(folder) == [name_left(os.getppid()).name]
    assert read_stored(folder) is None


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(ValueError), OutputFolder(tmp_path / name):
            raise ValueError("no such model")
    with pytest.raises(ValueError, match="--output_dir .*cannot be written: Not a directory. Name another folder"):
        OutputFolder(Path(__file__, "out")).__enter__()
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]
    assert list_names(tmp_path / "there") == []
    assert read_stored(tmp_path / "there") is None


@pytest.fixture
def umask():
    """Sets the umask, for the time of a test."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_others_may_read_weights_as_the_umask_says(tmp_path, umask, mask):
    umask(mask)
    with atomic_write(tmp_path / "model") as partial:
        partial.mkdir()
        save_file({"weight": np.zeros(3)}, partial / "model-00001-of-00001.safetensors")
        (partial / "private.txt").touch(0o600)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "model").iterdir()}
    assert modes == {"model-00001-of-00001.safetensors": 0o666 & ~mask, "private.txt": 0o600}


def write_model(folder: Path, content: str) -> None:
    for name in ("config.json", "eval_results.json", "model.safetensors", "more/card.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_files_take_the_place_of_others_of_their_names(tmp_path):
    write_model(tmp_path / "complete", "new")
    write_model(tmp_path / "best", "old")
    (tmp_path / "best" / "notes.txt").write_text("old")
    moved = move_files(tmp_path / "complete", tmp_path / "best", last="eval_results.json")
    assert moved == ["config.json", "model.safetensors", "more/card.yaml", "eval_results.json"]
    files = [file for file in (tmp_path / "best").rglob("*") if file.is_file()]
    assert {file.name for file in files if file.read_text() == "old"} == {"notes.txt"}
    assert len(files) == 5


@pytest.mark.parametrize("in_the_way", ["config.json", "model.safetensors"])
def test_no_results_stand_beside_files_that_were_replaced_in_part(tmp_path, in_the_way):
    write_model(tmp_path / "complete", "new")
    best = tmp_path / "best"
    (best / in_the_way / "a folder, which no file replaces").mkdir(parents=True)
    (best / "eval_results.json").write_text("old")
    with pytest.raises(OSError, match=in_the_way):
        move_files(tmp_path / "complete", best, last="eval_results.json")
    assert not (best / "eval_results.json").exists()


def test_of_a_linked_folder_the_link_alone_is_deleted(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    delete(tmp_path / "link")
    assert (tmp_path / "theirs" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "link").exists()
    delete(tmp_path / "link")
    delete(tmp_path / "theirs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stored", [None, {}, {"run": None}])
def test_a_run_of_which_nothing_is_known_is_another_run(stored):
    assert describe_run(stored) == "another run"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_each_error_of_a_full_disk_names_the_file(tmp_path, number):
    with pytest.raises(OSError) as raised, atomic_write(tmp_path / "it"):
        raise OSError(number, "full")
    assert raised.value.filename == str(tmp_path / "it")


def test_an_error_that_names_a_file_keeps_its_name(tmp_path):
    with pytest.raises(OSError) as raised, atomic_write(tmp_path / "it"):
        raise OSError(errno.ENOSPC, "full", "other")
    assert raised.value.filename == "other"


def test_what_another_machine_writes_just_now_is_left_alone(tmp_path):
    new = tmp_path / f"new.{os.getpid()}-0123abcd.lotlip-partial"
    old = tmp_path / f"old.{os.getpid()}-0123abcd.lotlip-partial"
    new.touch()
    old.touch()
    os.utime(old, (0, 0))
    with OutputFolder(tmp_path):
        assert new.exists()
        assert not old.exists()
