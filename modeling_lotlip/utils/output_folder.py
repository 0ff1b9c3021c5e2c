# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files that are written completely or not at all, and folders that one run writes and a later one continues."""

import errno
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout


logger = logging.getLogger(__name__)

SETTINGS_FILE, LOCK_FILE = "settings.json", ".lock"
# Errors of a disk that is full, or has no more room for this user or for a file of this size
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of folders with a model: see `OutputFolder.content`
MODEL_CONTENTS = ("an aligned model", "a mixture", "a training")
# What is not complete yet has an ending that no user gives a file, since it is deleted where a run has left it
PARTIAL, REPLACED = ".lotlip-partial", ".lotlip-replaced"
LEFT = re.compile(
    rf"(?P<name>.+)\.(?P<process>\d+)(?P<host>-[0-9a-f]{{8}})?(?P<ending>{re.escape(PARTIAL)}|{re.escape(REPLACED)})"
)
# Of this machine, since another one that writes to the same disk has processes of its own by the same numbers
HOST = f"-{hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()}"
# The ending of what several processes write together
PARTIAL_OF_ALL = f".0{PARTIAL}"


# Seconds by which the clocks of a disk and of a process may differ
CLOCK_TOLERANCE = 600


class FolderInUseError(ValueError):
    """Another run writes to a folder."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """
    Gives another name to write a file or a folder to. At the end this becomes `path`, in place of
    what was there; after an error it is deleted, and `path` is as it was.
    """
    path = Path(path).absolute()  # pyarrow takes the relative "a:b.parquet" for a URL
    partial = path.with_name(f"{path.name}.{os.getpid()}{HOST}{PARTIAL}")
    replaced = path.with_name(f"{path.name}.{os.getpid()}{HOST}{REPLACED}")
    clear_of_killed(path)
    try:
        with naming_file(path):
            yield partial
            if partial.is_dir():
                share_weights(partial)
            for file in (file for file in [partial, *partial.rglob("*")] if file.is_file()):
                sync(file)
            if partial.is_dir() and path.exists():
                path.rename(replaced)
            partial.replace(path)
    except BaseException:
        for left in (replaced, partial):
            with suppress(OSError):  # what cannot be deleted either says less than the first error
                clear(left)
        raise
    clear(replaced)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Names a file in an error of a full disk: the system does not say which one it has no room for."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Waits until a file is on the disk. Windows does that only for a file that is open for writing."""
    mode = "rb"
    if os.access(path, os.W_OK):
        mode = "r+b"
    with open(path, mode) as opened:
        os.fsync(opened.fileno())


def share_weights(folder: Path) -> None:
    """
    Gives the weights in the folder of a model the rights that all new files have: safetensors
    writes them for this user alone, and to others a model without weights is none.
    """
    probe = folder / f"rights.{os.getpid()}{PARTIAL}"
    probe.touch()
    rights = probe.stat().st_mode
    probe.unlink()
    for file in folder.glob("model*.safetensors"):
        before = file.stat().st_mode
        if before | rights != before:
            file.chmod(before | rights)


def clear(left: Path) -> None:
    """Deletes what an unfinished [`atomic_write`] has left; what it was about to replace gets its name back."""
    match = LEFT.fullmatch(left.name)
    if match["ending"] == REPLACED and left.exists() and not left.with_name(match["name"]).exists():
        left.rename(left.with_name(match["name"]))
    delete(left)


def clear_of_killed(path: Path) -> None:
    """
    Deletes what processes of this machine have left of a file or a folder that were killed while
    they wrote it: see [`clear`]. What cannot be deleted stays.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*"):
        match = LEFT.fullmatch(left.name)
        if match is not None and match["name"] == path.name and match["host"] == HOST and not is_being_written(left):
            with suppress(OSError):
                clear(left)


def is_being_written(left: Path) -> bool:
    """
    Returns whether another process, which is still there, writes an unfinished file or folder. A
    process by the same number that began after its last change is another one. Of another machine's
    processes nothing is known: one writes what was changed a short time ago.
    """
    match = LEFT.fullmatch(left.name)
    number = int(match["process"])
    if match["host"] not in (HOST, None):
        try:
            return time.time() - left.lstat().st_mtime < CLOCK_TOLERANCE
        except FileNotFoundError:
            return False
    if match["host"] is None or number == os.getpid():
        return False
    try:
        process = psutil.Process(number)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        began = process.create_time()
        facts = left.lstat()
    except psutil.AccessDenied:  # a process of another user is there, more is not known
        return True
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    if match["ending"] == REPLACED and sys.platform == "win32":  # which does not note when a name was changed
        return True
    return began <= max(facts.st_mtime, facts.st_ctime) + CLOCK_TOLERANCE


def delete(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # on a disk that is only read, to delete what is not there is an error
        path.unlink(missing_ok=True)


def move_files(source: Path, folder: Path, last: str) -> list[str]:
    """
    Moves the files of a folder, complete, into another, in place of those of the same names. One of
    them is deleted there first and moved last: whatever ends it between, it does not stand beside
    files of others.

    Args:
        source (`Path`): The folder whose files are moved.
        folder (`Path`): Where to.
        last (`str`): The name of the file that is moved last, if it is among them.

    Returns:
        `list[str]`: the names of the files.
    """
    share_weights(source)
    delete(folder / last)
    files = sorted(file for file in source.rglob("*") if file.is_file())
    names = []
    for file in sorted(files, key=lambda file: file == source / last):
        sync(file)
        name = file.relative_to(source)
        (folder / name).parent.mkdir(exist_ok=True)
        file.replace(folder / name)
        names.append(name.as_posix())
    return names


def read_stored(folder: Path) -> dict | None:
    """
    Reads `settings.json` of a folder, None where there is none: `id`, `content`, `settings`, and
    `run` until the run that writes has ended. One that another program has written has none of
    these.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # settings of an editor may have comments
        return {}
    return stored if isinstance(stored, dict) else {}


def write_stored(folder: Path, stored: dict) -> None:
    """Writes `settings.json` of a folder."""
    with atomic_write(folder / SETTINGS_FILE) as partial:
        partial.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def read_folder_id(folder: Path) -> str:
    """Reads what [`OutputFolder`] calls a folder by, wherever it is moved; empty where no run has written to it."""
    stored = read_stored(folder) or {}
    return stored.get("id", "")


class OutputFolder:
    """
    A folder that one run at a time writes to, as a context manager. `settings.json` in it says what
    it holds, with which settings, and which run writes to it. The run stays noted if it is killed,
    sets `is_stopped`, or an error ends it after it has changed a file: then `is_unfinished` is true
    for the next one.

    Args:
        path (`Path`):
            The folder, which is made if it is not there.
        settings (`dict`, *optional*):
            What its files depend on, by the names of the arguments. None where each run replaces
            the files.
        content (`str`, *optional*, defaults to `"results"`):
            What the files are.
        argument (`str`, *optional*, defaults to `"output_dir"`):
            The argument that names the folder.
        wait (`bool`, *optional*, defaults to `False`):
            Whether to wait for another run that writes to it.
        parts (`dict[str, int | None]`, *optional*):
            What the run completes, where runs complete a folder in parts: the name of each part,
            and how many of its rows, `None` for all. A run that was ended stays noted until others
            have completed each of its parts.

    Raises:
        `FolderInUseError`: if another run writes to the folder.
        `ValueError`: if it holds something else, or files with other settings.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any] | None = None,
        content: str = "results",
        argument: str = "output_dir",
        wait: bool = False,
        parts: dict[str, int | None] | None = None,
    ):
        self.path = Path(path)
        self.settings = None if settings is None else json.loads(json.dumps(settings, default=str))
        self.content = content
        self.argument = argument
        self.wait = wait
        self.parts = parts or {}
        self.lock = FileLock(self.path / LOCK_FILE, thread_local=False)
        self.is_unfinished = False
        self.is_stopped = False  # a run that a signal ends before it has done all sets it

    def __enter__(self) -> "OutputFolder":
        self.is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout as error:
            run = describe_run(read_stored(self.path))
            if not self.wait:
                raise FolderInUseError(
                    f"`--{self.argument} {self.path}` is written by {run}: wait for it, or end it."
                ) from error
            logger.warning(f"`--{self.argument} {self.path}` is written by {run}: waiting for it.")
            self.lock.acquire()
        except OSError as error:
            raise ValueError(
                f"`--{self.argument} {self.path}` cannot be written: {error.strerror}. Name another folder."
            ) from error
        try:
            self.written_by_others = set()
            for left in self.list_unfinished():
                if is_being_written(left):  # by a run that writes a single file into this folder
                    self.written_by_others.add(str(self.path / LEFT.fullmatch(left.name)["name"]))
                else:
                    clear(left)
            self.before = self.list_files()
            self.stored = read_stored(self.path)
            # what no run has written is of somebody else, also where nothing is beside it
            if self.stored is not None and (self.before or "content" not in self.stored):
                self.compare(self.stored)
                self.is_unfinished = self.stored.get("run") is not None
            self.id = read_folder_id(self.path) or uuid.uuid4().hex
            self.ended_early = self.find_ended_early()
            run = {"process": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)}
            run["start"] = time.strftime("%Y-%m-%d %H:%M:%S")
            run["parts"] = self.parts
            if self.ended_early is not None:
                run["parts"] = self.parts | self.ended_early["parts"]
            self.note(run)
        except BaseException:
            self.lock.release()
            raise
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                if not self.is_stopped:
                    self.note(self.ended_early)
            elif self.is_unchanged():  # the error came before anything was done: all is as it was
                self.restore()
        finally:  # also where the disk is full, or the folder was deleted
            self.lock.release()

    def find_ended_early(self) -> dict | None:
        """Finds the run before, with those of its parts that this run does not complete, None if it completes all."""
        if not self.is_unfinished:
            return None
        run = self.stored["run"]
        left = {}
        for name, num_rows in run.get("parts", {}).items():
            if not self.completes(name, num_rows):
                left[name] = num_rows
        if not left:
            return None
        return run | {"parts": left}

    def completes(self, name: str, num_rows: int | None) -> bool:
        """Says whether this run completes so many rows of a part, or all of them."""
        if name not in self.parts:
            return False
        own = self.parts[name]
        return own is None or (num_rows is not None and num_rows <= own)

    def is_unchanged(self) -> bool:
        """
        Returns whether the folder holds what it held before, but for files that other processes
        have completed. One that was deleted meanwhile is not unchanged: there is nothing to
        restore.
        """
        try:
            files = self.list_files()
        except FileNotFoundError:
            return False
        changed = dict(files.items() ^ self.before.items())
        return self.written_by_others.issuperset(changed)

    def restore(self) -> None:
        """Makes `settings.json` as it was before this run; a folder that was not there is deleted."""
        if self.before and self.stored is not None:
            write_stored(self.path, self.stored)
        else:
            delete(self.path / SETTINGS_FILE)
        if self.is_new and not any(map(is_being_written, self.list_unfinished())):
            self.delete()

    def delete(self) -> None:
        """Deletes the folder, if possible before another run can lock it."""
        try:
            delete(self.path)
        except PermissionError:  # on Windows no file is deleted that is open, as that of the lock is
            self.lock.release()
            delete(self.path)

    def list_files(self) -> dict[str, int]:
        """Returns the times at which complete files were written last, but for those of this class."""
        own = (SETTINGS_FILE, LOCK_FILE)
        files = [path for path in self.path.iterdir() if path.name not in own and not LEFT.fullmatch(path.name)]
        files += self.path.glob("*.lance/*")  # what is written to a table of LanceDB does not change its own time
        return {str(path): path.stat().st_mtime_ns for path in files}

    def list_unfinished(self) -> list[Path]:
        """Lists the unfinished files and folders, of killed processes and of such that still write."""
        return [path for path in self.path.iterdir() if LEFT.fullmatch(path.name)]

    def compare(self, stored: dict) -> None:
        """Raises a `ValueError` if the folder holds something else, or files with other settings."""
        content = stored.get("content", "other files")
        if content != self.content:
            raise ValueError(
                f"`--{self.argument} {self.path}` holds {content}, not {self.content}: name another folder."
            )
        if self.settings is None:
            return
        earlier = stored["settings"] or {}
        changes = []
        for name in earlier | self.settings:
            before = earlier.get(name)
            now = self.settings.get(name)
            if before != now:
                changes.append(f"{name} = {before!r}, this run has {now!r}")
        if changes:
            raise ValueError(
                f"`--{self.argument} {self.path}` holds {content} with {', '.join(changes)}. Use "
                "the same, or name another folder."
            )

    def note(self, run: dict | None) -> None:
        """Writes down which run writes."""
        stored = {"id": self.id, "content": self.content, "settings": self.settings, "run": run}
        write_stored(self.path, stored)


def holds_model(folder: Path) -> bool:
    """Returns whether a run writes, or has written, a model to a folder."""
    try:
        stored = read_stored(folder)
    except OSError:  # what may not be read is not known
        return False
    return stored is not None and stored.get("content") in MODEL_CONTENTS


def describe_run(stored: dict | None) -> str:
    """Describes the run that writes to a folder, from what is stored there."""
    run = stored and stored.get("run")
    if not run:
        return "another run"
    return "process {process} on {host} since {start} ({command})".format(**run)


def describe_unfinished(folder: Path) -> str | None:
    """Makes a sentence on a folder whose run has not ended; None if it has."""
    stored = read_stored(folder)
    if not stored or not stored.get("run"):
        return None
    return (
        f"{folder} is not complete: {describe_run(stored)} still writes to it, or was ended early. "
        "The same command completes it."
    )


def warn_of_unfinished(paths: Iterable[Path]) -> None:
    """Warns of files in folders of runs that have not ended: more files, or rows, are missing."""
    for unfinished in map(describe_unfinished, dict.fromkeys(Path(path).parent for path in paths)):
        if unfinished is not None:
            logger.warning(unfinished)
