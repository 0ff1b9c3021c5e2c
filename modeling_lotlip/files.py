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
"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
from pyarrow import parquet


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """
    A file that is there whole or not at all: gives another name to write to, which becomes `path` at the end.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from modeling_lotlip.files import written_whole

    >>> with written_whole(Path("results.txt")) as partial:
    ...     _ = partial.write_text("all of it")
    >>> Path("results.txt").read_text()
    'all of it'
    ```"""
    partial = path.with_name(path.name + ".partial")
    yield partial
    partial.replace(path)


def check_writable(path: Path, option: str = "--output_file") -> None:
    """
    Makes the folder of a file that will be written when everything is computed.

    Raises:
        `ValueError`: if no file can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path}: {error}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written.")


def write_json(path: Path, results: dict) -> None:
    """Writes results to a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a parquet file, whole or not at all."""
    with written_whole(path) as partial:
        parquet.write_table(table, partial)


def refuse_other_settings(noted: dict, settings: dict, output_dir: Path, content: str) -> None:
    """
    Compares the settings of a run with those that an earlier one noted in the same folder.

    Raises:
        `ValueError`: if they differ, with the differences.
    """
    changed = [name for name in settings if settings[name] != noted.get(name)]
    if changed:
        differences = ", ".join(f"{name} = {noted.get(name)!r}, this run has {settings[name]!r}" for name in changed)
        raise ValueError(
            f"`--output_dir {output_dir}` holds {content} with {differences}. Go on with the same model, data and "
            "settings, or name another folder."
        )
