# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The index of a folder of images: a table of embeddings that follows the files."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path, PurePath
from typing import NamedTuple

from datasets.fingerprint import Hasher
from huggingface_hub import cached_assets_path
from transformers import PreTrainedModel, ProcessorMixin

from ..data.folder import is_image_file, scan_folder
from ..data.images import Resizing, undecoded
from ..data.loading import compute_fingerprint
from ..data.reader import RowInfo
from ..data.rows import batched
from ..embedding.arguments import DEFAULT_MODEL
from ..embedding.batches import Batch, embed_texts, tokenize
from ..embedding.rows import RowCollator, embed_rows
from ..embedding.store import TableReader, embed_background, load_named_data, note_model, write_results
from ..embedding.table import EmbeddingTable, model_settings
from ..embedding.workers import Workers
from .arguments import SearchModelArguments


class Changes(NamedTuple):
    """
    What an update of an index has changed.

    Args:
        new, changed, deleted (`int`):
            How many images were embedded for the first time, embedded again, and removed.
        left_out (`list[str]`):
            Sentences on what else is in the folder.
    """

    new: int = 0
    changed: int = 0
    deleted: int = 0
    left_out: list[str] = []


def find_table(
    folder: Path, model: PreTrainedModel, processor: ProcessorMixin, index_dir: Path | None = None
) -> EmbeddingTable:
    """
    The index of a folder of images and a model, which is made if there is none.

    Args:
        folder (`Path`):
            The folder of images.
        model (`PreTrainedModel`), processor (`ProcessorMixin`):
            A dual encoder and its processor.
        index_dir (`Path`, *optional*):
            The folder of all indices. Default: `assets/lotlip/search` in the cache of the Hub.
    """
    settings = model_settings(model, processor) | {"kinds": ["image"], "source": str(folder.resolve())}
    name = f"{folder.resolve().name}-{Hasher.hash(settings)}"
    place = cached_assets_path("lotlip", "search", name) if index_dir is None else index_dir / name
    dim = embed_texts(model, tokenize(processor, ["a"])).shape[-1]
    return EmbeddingTable.create(place, dim, settings, note_model(model), dtype="float16")


def open_table(folder: Path | None, arguments: SearchModelArguments) -> EmbeddingTable | None:
    """
    The table in a folder, if one is named. Arguments of the model that are not given become those of its embeddings,
    or the defaults.

    Raises:
        `ValueError`: if there is no table, or it does not say its model.
    """
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
    """
    A function from the key of an image to the image, undecoded: its `path` or `bytes`.

    Raises:
        `ValueError`: if the table has no images, or they are not there or have changed.
    """
    source, folder = table.settings.get("source"), table.folder
    if isinstance(source, str):
        if "://" in source:
            raise ValueError(f"{folder} is of images in {source}, which the page cannot show: use `lotlip search`.")
        return lambda key: {"path": os.path.join(source, key), "bytes": None}
    if "image" not in table.settings["kinds"] or source["streaming"]:
        why = "embeddings of streamed data" if source["streaming"] else "no embeddings of images"
        raise ValueError(f"{folder} holds {why}: the page has no images to show.")
    column = source["image_column"]
    dataset = load_named_data(source, key_column=table.settings["key_column"])
    fingerprint = compute_fingerprint(dataset, column)
    table.check_settings({"data": fingerprint})
    dataset, rows = undecoded(dataset.select_columns(column), column), {}
    for batch in table.read(["key", "row"], table.condition()):
        rows |= zip(batch["key"].to_pylist(), batch["row"].to_pylist())
    return lambda key: dataset[rows[key]][column]


def update_table(
    table: EmbeddingTable,
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
    report: Callable[[int, int], object] = lambda done, total: None,
    lock: AbstractContextManager | None = None,
    num_workers: int | None = 0,
    wait: bool = False,
) -> Changes:
    """
    Makes an index that of a folder as it is now: new images are embedded, deleted ones removed, and changed ones
    embedded again. What cannot be read is remembered, and tried again when its file changes. What is out of reach is
    kept as it was, and so is everything if there is no image any more: a disk that is not mounted is an empty folder.
    Whatever ends an update, an error or Ctrl-C, what was embedded until then is kept.

    Args:
        table ([`EmbeddingTable`]):
            The index of the folder and the model: see [`find_table`].
        folder (`Path`):
            The folder of images. Hidden files are left out, and links to folders are not followed.
        model (`PreTrainedModel`), processor (`ProcessorMixin`):
            A dual encoder and its processor.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        report (`Callable[[int, int], object]`, *optional*):
            Called with how many images are done and how many there are to do. An error that it raises ends the update.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode, None for as many as fit the machine: see [`Workers`].
        wait (`bool`, *optional*, defaults to `False`):
            Whether to wait for another program that updates the index.

    Raises:
        `FolderInUseError`: if another program updates the index.
        `OSError`: if the folder is not there any more, or the index cannot be written.
        `ValueError`: if the model's embeddings are not finite.
    """
    lock = lock or nullcontext()
    with table.writing(wait, "index_dir"):
        pending, changed, gone, left_out = compare(table, folder)
        table.delete(gone + changed)
        images = (
            (RowInfo(None, name, about=about), {"image": {"path": str(folder / name), "bytes": None}})
            for name, about in sorted(pending.items())
        )

        def follow(results: Iterator[Batch]) -> Iterator[list[Batch]]:
            done = 0
            report(done, len(pending))
            for part in results:
                yield [part]
                done += len(part.entries) + len(part.unreadable)
                report(done, len(pending))

        reader = TableReader(["image"], resizing=Resizing.of(processor.image_processor))
        with Workers(RowCollator(processor, reader), num_workers) as workers:
            batches = workers.map(batched(images, batch_size))
            with closing(embed_rows(model, processor, batches, num_prefetched=2, lock=lock)) as results:
                write_results(follow(results), table.append)

        def embed() -> object:
            with lock:
                return embed_background(model, processor)

        table.maintain(embed)
    return Changes(len(pending) - len(changed), len(changed), len(gone), left_out)


def compare(table: EmbeddingTable, folder: Path) -> tuple[dict[str, dict], list[str], list[str], list[str]]:
    """
    The images of a folder that are to be embedded, with their file signatures; which of them are in the table; those
    in the table that are to be removed; and sentences on what else is in the folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} is not there any more. What was indexed is kept.")
    scan = scan_folder(folder)
    pending, others = {}, scan.left_out.copy()
    for name, status in scan.files.items():
        if is_image_file(name):
            pending[name] = {"size": status.st_size, "modified": status.st_mtime_ns}
        else:
            others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    is_empty, num_stored, changed, gone = not pending, 0, [], []
    for key, signature in table.read_signatures():
        num_stored += 1
        if key not in pending:
            # a folder that may not be read, or has become empty as that of a disk that is not mounted
            unknown = scan.closed_folders | scan.empty_folders
            if not any(str(parent) in unknown for parent in PurePath(key).parents):
                gone.append(key)
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
    if scan.empty_folders:
        left_out.append(f"Empty folders, whose indexed images are kept: {', '.join(sorted(scan.empty_folders))}.")
    return pending, changed, gone, left_out
