# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The tables of embeddings that are searched, what has changed in the folder of one, and the images of one."""

import logging
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import NamedTuple

from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE

from ..data.folder import is_image_file, scan_folder
from ..data.images import UnreadableImageError, undecoded
from ..data.loading import compute_fingerprint
from ..encoder.arguments import DEFAULT_MODEL
from ..encoder.batches import sign_file
from ..encoder.dual_encoder import DualEncoder
from ..table.embed import load_named_data, note_model
from ..table.storage import EmbeddingTable
from ..utils.terminal import printable
from .arguments import SearchModelArguments


logger = logging.getLogger(__name__)


def find_table(folder: Path, encoder: DualEncoder, index_dir: Path | None = None) -> EmbeddingTable:
    """
    The index of a folder of images and a model, which is made if there is none, among all indices in `index_dir`, by
    default `assets/lotlip/search` in the cache of the Hub.
    """
    settings = encoder.settings() | {"kinds": ["image"], "source": str(folder.resolve())}
    name = f"{folder.resolve().name[:50]}-{Hasher.hash(settings)}"  # a name has at most 255 bytes
    place = Path(HF_ASSETS_CACHE, "lotlip", "search") if index_dir is None else index_dir
    return EmbeddingTable.create(
        place / name, encoder.dim, settings, note_model(encoder), "float16", wait=True, argument="index_dir"
    )


def open_table(folder: Path | None, arguments: SearchModelArguments) -> EmbeddingTable | None:
    """The table in a folder, if one is named. Arguments that are not given become those of its model, or defaults."""
    table = None if folder is None else EmbeddingTable(folder)
    noted = {} if table is None else table.settings | table.notes
    name = arguments.model_name_or_path or noted.get("model_name_or_path", DEFAULT_MODEL if table is None else None)
    if name is None:
        raise ValueError(f"`--embeddings_dir {folder}` does not say which model made it: name that by --model.")
    arguments.model_name_or_path, arguments.dtype = name, arguments.dtype or noted.get("dtype", "float32")
    arguments.backend = arguments.backend or noted.get("backend", "torch")
    arguments.truncate_dim = arguments.truncate_dim or noted.get("truncate_dim")
    arguments.max_length = arguments.max_length or noted.get("max_length")
    return table


def open_images(table: EmbeddingTable) -> Callable[[str], dict]:
    """A function from a key to the undecoded image. Raises a `ValueError` if they are not there or have changed."""
    source, folder = table.settings.get("source"), table.folder
    if isinstance(source, str):
        if "://" in source:
            raise ValueError(f"{folder} is of images in {source}, which the page cannot show: use `lotlip search`.")
        return lambda key: read_unchanged(table, key, {"path": os.path.join(source, key), "bytes": None})
    if "image" not in table.settings["kinds"] or source["streaming"]:
        why = "embeddings of streamed data" if source["streaming"] else "no embeddings of images"
        raise ValueError(f"{folder} holds {why}: the page has no images to show.")
    column = source["image_column"]
    dataset = load_named_data(source, key_column=table.settings["key_column"])
    table.check_settings({"data": compute_fingerprint(dataset, column)})
    dataset = undecoded(dataset.select_columns(column), column)
    return lambda key: read_unchanged(table, key, dataset[table.row(key)][column])


def read_unchanged(table: EmbeddingTable, key: str, image: dict) -> dict:
    """An undecoded image. Raises an `UnreadableImageError` if its file has changed since it was embedded."""
    path, stored = image.get("path") or "", dict(table.read_signatures(key)).get(key)
    if stored and os.path.exists(path) and stored != sign_file(os.stat(path)):
        raise UnreadableImageError("The file has changed since it was embedded.")
    return image


def list_images(folder: str) -> list[str]:
    """The paths of the images in a folder that an index has; a warning says what is left out."""
    scan = scan_folder(folder)
    left_out = [f"{number:,} {reason}" for reason, number in scan.left_out.items()]
    left_out += [f"the folder {name}, which may not be read" for name in sorted(scan.closed_folders)]
    if left_out:
        logger.warning(printable(f"Of {folder} files are left out: {', '.join(left_out)}."))
    if not (images := [os.path.join(folder, name) for name in scan.files if is_image_file(name)]):
        raise ValueError("there is no image")
    return images


class Changes(NamedTuple):
    """What an update of an index has changed."""

    new: int = 0  # images that were embedded for the first time
    changed: int = 0  # images that were embedded again
    deleted: int = 0  # images that were removed
    left_out: list[str] = []  # sentences on what else is in the folder


def compare(table: EmbeddingTable, folder: Path) -> tuple[dict[str, dict], list[str], Changes]:
    """
    The images of a folder that are to be embedded, with their file signatures, the keys that are to be removed before,
    and what this changes. Images in a folder that may not be read, or has become empty, are kept.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} is not there any more. What was indexed is kept.")
    scan = scan_folder(folder)
    pending, others = {}, scan.left_out.copy()
    for name, status in scan.files.items():
        if is_image_file(name):
            pending[name] = sign_file(status)
        else:
            others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    is_empty, num_stored, changed, gone, kept = not pending, 0, [], [], set()
    for key, signature in table.read_signatures():
        num_stored += 1
        if key not in pending:
            closed = {str(parent) for parent in PurePath(key).parents} & (scan.closed_folders | scan.empty_folders)
            kept |= closed
            gone += [] if closed else [key]
        elif pending[key] == signature:
            del pending[key]
        else:
            changed.append(key)
    if is_empty and num_stored and num_stored == len(gone):
        raise FileNotFoundError(
            f"there is no image any more. The {num_stored:,} that were indexed are kept; to forget them, delete "
            f"{table.folder}."
        )
    left_out = []
    if others:
        counts = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common())
        left_out.append(f"Other files, left out: {counts}.")
    if scan.closed_folders:
        left_out.append(f"Folders that may not be read: {', '.join(sorted(scan.closed_folders))}.")
    if emptied := sorted(kept & scan.empty_folders):
        left_out.append(f"Empty folders, whose indexed images are kept: {', '.join(emptied)}.")
    return pending, gone + changed, Changes(len(pending) - len(changed), len(changed), len(gone), left_out)
