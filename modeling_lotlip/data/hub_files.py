# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The files of a dataset of the Hub, and which split each belongs to."""

import os
import re
from pathlib import Path

from datasets import DatasetBuilder, DownloadConfig
from datasets import config as datasets_config
from datasets.data_files import get_data_patterns
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec.core import url_to_fs
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx
from transformers.utils import logging

from .folder import (
    add_images,
    divide_files,
    is_hidden,
    is_table_file,
    warn_of_images_of_other_endings,
)


logger = logging.get_logger(__name__)

# The address of a file of the Hub: that of its repository at a commit, and the path in it
HUB_ADDRESS = re.compile(r"(hf://datasets/[^@]+@([^/]+))/(.+)")
# That of a file or a pattern, as a user may write it
REPOSITORY_FILE = re.compile(r"hf://datasets/(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<path>.+)")
COMMIT = re.compile("[0-9a-f]{40}")


def divide_hub_files(builder: DatasetBuilder) -> None:
    """
    Puts each file of a dataset of the Hub into its split, once, and says which are in none. `datasets` looks for the
    words of splits anywhere in a path: it lists `train/train_station/0.png` twice, and `test/train_station/0.png` in
    `train`, too. Where a card says which files are in which split, they stay there.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`, whose files are changed.
    """
    data_files = builder.config.data_files or {}
    matches = [HUB_ADDRESS.fullmatch(file) for files in data_files.values() for file in files]
    if builder.repo_id is None or not matches or None in matches:
        return
    card = read_hub_card(builder, matches[0][2])
    if isinstance(builder, ImageFolder) and "data_files:" not in card and "data_dir:" not in card:
        patterns = get_data_patterns(builder.base_path, DownloadConfig(token=builder.token))
        add_images(builder, patterns, builder.base_path)
        data_files = builder.config.data_files
    elif isinstance(builder, ImageFolder):
        options = {"token": builder.token, "endpoint": datasets_config.HF_ENDPOINT}
        warn_of_images_of_other_endings(*url_to_fs(builder.base_path, **options))
    if "data_files:" in card:
        return
    names = {file: HUB_ADDRESS.fullmatch(file)[3] for files in data_files.values() for file in files}
    divide_files(builder, names)
    if "configs:" not in card:  # which may name a folder
        warn_of_hub_files_without_split(builder, set(names))


def read_hub_card(builder: DatasetBuilder, commit: str) -> str:
    """Reads what the card of a dataset of the Hub at a commit says to programs, between two lines of `---`."""
    try:
        card = hf_hub_download(
            builder.repo_id,
            "README.md",
            repo_type="dataset",
            revision=commit,
            token=builder.token,
            endpoint=datasets_config.HF_ENDPOINT,
        )
    except EntryNotFoundError:
        return ""
    said = re.match(r"---\s*\n(.*?)\n---", Path(card).read_text("utf-8", "replace"), re.DOTALL)
    return "" if said is None else said[1]


def name_commits(files: list[str]) -> list[str]:
    """
    Writes addresses of files of the Hub with the present commit: without it `datasets` takes what it has in its cache
    of an earlier one. Where the Hub is not reached they stay as they are.

    Args:
        files (`list[str]`):
            Names, addresses and patterns of files, of which those of other places stay.
    """
    named = []
    commits = {}
    for file in files:
        address = REPOSITORY_FILE.fullmatch(file)
        if address is None or COMMIT.fullmatch(address["revision"] or ""):
            named.append(file)
            continue
        repository = (address["repository"], address["revision"])
        if repository not in commits:
            commits[repository] = find_dataset_commit(*repository)
        if commits[repository] is None:
            named.append(file)
        else:
            named.append(f"hf://datasets/{address['repository']}@{commits[repository]}/{address['path']}")
    return named


def find_dataset_commit(name: str, revision: str | None) -> str | None:
    """Finds the commit of a revision of a dataset of the Hub; None if it is not reached, or has none."""
    try:
        return HfApi(endpoint=datasets_config.HF_ENDPOINT).dataset_info(name, revision=revision).sha
    except (httpx.HTTPError, OfflineModeIsEnabled):  # who reads the files says why
        return None


def find_content_of_hub_file(file: str) -> str:
    """Finds what the Hub knows the content of a file by, which has the address of a commit."""
    system, path = url_to_fs(file, endpoint=datasets_config.HF_ENDPOINT)
    return system.info(path)["blob_id"]


def warn_of_hub_files_without_split(builder: DatasetBuilder, used: set[str]) -> None:
    """
    Says which files of a dataset of the Hub are in none of the splits that `datasets` finds in their names.

    Args:
        builder (`DatasetBuilder`):
            What reads the files.
        used (`set[str]`):
            The addresses of those that are in one.
    """
    endings = {os.path.splitext(file)[1].lower() for file in used}
    options = {"token": builder.token, "endpoint": datasets_config.HF_ENDPOINT}
    system, folder = url_to_fs(builder.base_path, **options)
    files = []
    of_other_endings = []
    in_special_folders = []
    for path in system.find(folder):
        name = path.removeprefix(f"{folder}/")
        ending = os.path.splitext(name)[1].lower()
        if ending == ".json":  # of settings, too
            continue
        if is_hidden(name):
            is_system = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
            if ending in endings and not is_system:
                in_special_folders.append(f"hf://{path}")
        elif ending in endings:
            files.append(f"hf://{path}")
        elif is_table_file(name):
            of_other_endings.append(f"hf://{path}")
    unused = [file for file in files if file not in used]
    if unused:
        logger.warning_once(
            f"{len(unused)} of {len(files)} files of {builder.repo_id} are left out, as {unused[0]!r}: words in the "
            f"names of the others make these the splits {', '.join(map(str, builder.config.data_files))}. Name files "
            "with `--data_files`."
        )
    if of_other_endings:
        logger.warning_once(
            f"{len(of_other_endings)} files of {builder.repo_id} are left out, as {of_other_endings[0]!r}: those of "
            f"each split with the ending {' or '.join(sorted(endings))} are read. Name files with `--data_files`."
        )
    if in_special_folders:
        logger.warning_once(
            f"{len(in_special_folders)} files of {builder.repo_id} are left out, as {in_special_folders[0]!r}: "
            "`datasets` passes over names that begin with __. Give them others."
        )
