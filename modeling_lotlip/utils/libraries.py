# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of Python and of installed libraries, which are told from those of users."""

import site
import sys
import sysconfig
from functools import cache
from importlib.metadata import distributions
from pathlib import Path


def list_library_folders() -> tuple[Path, ...]:
    """Lists the folders to which Python and pip install what a program imports."""
    folders = [
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    ]
    # on Windows the folder of an environment is among them, and a user may have files anywhere below it
    roots = {Path(sys.prefix), Path(sys.base_prefix)}
    return tuple(path for path in map(Path, folders) if path not in roots)


LIBRARY_FOLDERS = list_library_folders()


@cache
def list_installed(folder: str) -> frozenset[str]:
    """
    Lists the files that pip has installed to a folder, relative to it. Those of an editable installation lie
    elsewhere, and are of who edits them.
    """
    files = set()
    for distribution in distributions(path=[folder]):
        for line in (distribution.read_text("RECORD") or "").splitlines():
            files.add(line.partition(",")[0])
    return frozenset(files)


def is_of_library(file: Path) -> bool:
    """Returns whether a file is of Python or of an installed library, which is known by the names of its classes."""
    if any(file.is_relative_to(folder) for folder in LIBRARY_FOLDERS):
        return True
    # other folders that pip has installed to, by `--target` say, may have files of a user, too
    for folder in sys.path:
        if folder and file.is_relative_to(folder) and file.relative_to(folder).as_posix() in list_installed(folder):
            return True
    return False
