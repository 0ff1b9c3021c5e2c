# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The users of the search page."""

import os
import stat
from pathlib import Path


LEAST_PASSWORD = 8  # characters


def read_logins(path: Path) -> list[tuple[str, str]]:
    """
    The users of a file with a line `USER:PASSWORD` for each.

    Args:
        path (`Path`):
            The file, which others must not be able to read. Blank lines are left out.

    Raises:
        `ValueError`: if there is no such file, others can read it, or a line is none of a user.
    """
    if not path.is_file():
        raise ValueError(f"--auth_file {path} is no file: write one with a line USER:PASSWORD for each user.")
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"--auth_file {path} can be read by others: `chmod 600 {path}`.")
    logins = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        user, separator, password = line.partition(":")
        user = user.strip()
        if not separator or not user or len(password) < LEAST_PASSWORD:
            least = f"with at least {LEAST_PASSWORD} characters of password"
            raise ValueError(f"--auth_file {path}, line {number}: write USER:PASSWORD, {least}.")
        if user in logins:
            raise ValueError(f"--auth_file {path}, line {number}: the user {user} is there already.")
        logins[user] = password
    if not logins:
        raise ValueError(f"--auth_file {path} names no user: write a line USER:PASSWORD for each.")
    return list(logins.items())
