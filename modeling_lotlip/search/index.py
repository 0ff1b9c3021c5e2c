# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The tables of embeddings that are searched, what has changed in the folder of one, and the images of one."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath

from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE

from ..data.folder import FolderScan, is_indexed_file, scan_folder
from ..data.images import UnreadableImageError, find_image_path, undecoded
from ..encoder.arguments import AUTO, DEFAULT_MODEL
from ..encoder.batches import sign_file
from ..encoder.dual_encoder import DualEncoder, load_encoder
from ..encoder.loading import find_saved_truncate_dim
from ..table.embed import find_lasting_name, load_named_data, note_model
from ..table.fingerprint import hash_rows
from ..table.reuse import list_tables
from ..table.storage import EmbeddingTable, one_of
from ..utils.files import hash_file
from ..utils.terminal import printable, quote
from .arguments import SearchModelArguments


logger = logging.getLogger(__name__)

# Folders that are not there any more, each with a sentence of its own
MAX_ORPHANS_NAMED = 3


def locate_indices(index_dir: Path | None = None) -> Path:
    """Locates the folder of indices, by default `assets/lotlip/search` in the cache of the Hub."""
    return index_dir or Path(HF_ASSETS_CACHE, "lotlip", "search")


def describe_index(folder: Path, encoder: DualEncoder) -> dict:
    """Describes what the embeddings of a folder of images depend on: the settings of its index."""
    settings = encoder.settings() | {"kinds": ["image"], "source": str(folder.resolve())}
    del settings["max_length"]  # of texts, which an index has none of
    return settings


def find_table(folder: Path, encoder: DualEncoder, index_dir: Path | None = None) -> EmbeddingTable:
    """
    Opens the index of a folder of images and a model, which is made if there is none.

    Args:
        folder (`Path`):
            The folder.
        encoder ([`DualEncoder`]):
            Embeds the images.
        index_dir (`Path`, *optional*):
            The folder of indices: see [`locate_indices`].

    Returns:
        [`EmbeddingTable`]: the index.
    """
    settings = describe_index(folder, encoder)
    name = f"{folder.resolve().name[:50]}-{Hasher.hash(settings)}"  # a name has at most 255 bytes
    return EmbeddingTable.create(
        locate_indices(index_dir) / name,
        encoder.dim,
        settings,
        note_model(encoder),
        "float16",
        wait=True,
        argument="index_dir",
    )


def forget_folder(folder: str, index_dir: Path | None = None, model: str | None = None) -> dict[Path, str | None]:
    """
    Deletes the indices of a folder of images, whose own files stay.

    Args:
        folder (`str`):
            The folder, which may be gone.
        index_dir (`Path`, *optional*):
            The folder of indices: see [`locate_indices`].
        model (`str`, *optional*):
            Only the indices of the model of this name, which may be gone, too. Default: those of all models.

    Returns:
        `dict[Path, str | None]`: the folders of the indices, and the name of the model of each.

    Raises:
        `ValueError`: if there is none; names the folders, or the models of this folder, that have one.
        `FolderInUseError`: if another program writes to one.
    """
    root = locate_indices(index_dir)
    tables = list_tables(root)
    # where a folder was moved, a link to another one may be in its place
    sources = {str(Path(folder).resolve()), str(Path(folder).parent.resolve() / Path(folder).name)}
    found = [table for table in tables if table.settings.get("source") in sources]
    if not found:
        known = sorted({str(table.settings.get("source")) for table in tables})
        raise ValueError(f"--forget {folder}: there is no index of it in {root}, but of {known}. Name one of these.")
    models = {table.folder: table.notes.get("model_name_or_path") for table in found}
    if model is not None:
        names = (find_lasting_name(model), os.path.abspath(model))  # of a folder that is gone, too
        found = [table for table in found if models[table.folder] in names]
        if not found:
            known = sorted(set(map(str, models.values())))
            raise ValueError(f"--model {model} has no index of {folder} in {root}, but {known}. Name one of these.")
    for table in found:
        with table.writing(argument="index_dir"):
            pass  # Only asks: `writing` raises where another program writes. The lock lies in the folder that goes.
        shutil.rmtree(table.folder)
    return {table.folder: models[table.folder] for table in found}


def describe_orphans(index_dir: Path | None = None) -> list[str]:
    """
    Describes the indices of folders that are not there any more, with what deletes them: a sentence each, or one for
    all if they are many. An index without images is passed over, a damaged one with a warning.
    """
    megabytes = {}
    for table in list_tables(locate_indices(index_dir)):
        source = table.settings.get("source")
        if not isinstance(source, str) or "://" in source or os.path.isdir(source):
            continue
        if count_indexed_images(table) > 0:
            num_bytes = sum(path.stat().st_size for path in table.folder.rglob("*") if path.is_file())
            megabytes[source] = megabytes.get(source, 0) + num_bytes / 2**20
    if len(megabytes) > MAX_ORPHANS_NAMED:
        first = ", ".join(sorted(megabytes)[:MAX_ORPHANS_NAMED])
        return [
            f"{len(megabytes)} folders that were indexed are not there, {first} and others; their indices take "
            f"{sum(megabytes.values()):,.0f} MB. To delete that of one: lotlip search --forget FOLDER"
        ]
    return [
        f"The folder {source} is not there; its index takes {size:,.0f} MB. If it will not come back: "
        f"lotlip search --forget {quote(source)}"
        for source, size in megabytes.items()
    ]


def count_indexed_images(table: EmbeddingTable) -> int:
    """Counts the images that can be searched. If the index is damaged, that is none, with a warning."""
    try:
        return len(table)
    except OSError as error:
        logger.warning(printable(str(error)))
        return 0


def open_table(folder: Path | None, arguments: SearchModelArguments) -> EmbeddingTable | None:
    """
    Opens the table in a folder, if one is named. Arguments that are not given become those of its model, or defaults.
    """
    table = None
    noted = {}
    name = arguments.model_name_or_path
    if folder is not None:
        table = EmbeddingTable(folder)
        noted = table.settings | table.notes
        name = name or noted.get("model_name_or_path")
        if name is None:
            raise ValueError(f"`--embeddings_dir {folder}` does not say which model made it: name that by --model.")
    arguments.model_name_or_path = name or DEFAULT_MODEL
    arguments.truncate_dim = arguments.truncate_dim or noted.get("truncate_dim")
    arguments.max_length = arguments.max_length or noted.get("max_length")
    return table


def load_encoder_of_folder(
    folder: Path, arguments: SearchModelArguments, index_dir: Path | None = None
) -> DualEncoder:
    """
    Loads a model to search a folder of images. Where the arguments leave open how it is computed, and the folder has
    an index of the model that can be computed here, it is computed as that was: the images are not embedded again.

    Args:
        folder (`Path`):
            The folder.
        arguments ([`SearchModelArguments`]):
            The model, and how it runs.
        index_dir (`Path`, *optional*):
            The folder of indices: see [`locate_indices`].
    """
    if AUTO in (arguments.backend, arguments.dtype):
        for table in list_indices_of_model(folder, arguments, index_dir):
            made = replace(arguments, backend=table.computation.backend, dtype=table.computation.dtype)
            try:
                encoder = load_encoder(arguments.model_name_or_path, made)
                table.check_settings(describe_index(folder, encoder))
            except (ImportError, ValueError) as error:
                logger.warning(printable(f"The index {table.folder} is not used: {error}"))
                continue
            return encoder
    return load_encoder(arguments.model_name_or_path, arguments)


def list_indices_of_model(
    folder: Path, arguments: SearchModelArguments, index_dir: Path | None = None
) -> list[EmbeddingTable]:
    """
    Lists the indices of a folder of images that are of a model of this name, and computed as far as the arguments say,
    those of most images first, damaged ones last.

    Args:
        folder (`Path`):
            The folder.
        arguments ([`SearchModelArguments`]):
            The model, and how it runs.
        index_dir (`Path`, *optional*):
            The folder of indices: see [`locate_indices`].
    """
    truncate_dim = arguments.truncate_dim or find_saved_truncate_dim(arguments.model_name_or_path)
    wanted = {"source": str(folder.resolve()), "truncate_dim": truncate_dim}
    asked = {"backend": arguments.backend, "dtype": arguments.dtype}
    wanted |= {key: value for key, value in asked.items() if value != AUTO}
    name = find_lasting_name(arguments.model_name_or_path)
    found = []
    for table in list_tables(locate_indices(index_dir)):
        is_of_model = table.notes.get("model_name_or_path") == name
        if is_of_model and all(table.settings.get(key) == value for key, value in wanted.items()):
            found.append(table)
    return sorted(found, key=count_indexed_images, reverse=True)


def open_images(table: EmbeddingTable) -> Callable[[str], dict]:
    """
    Makes a function from a key to the undecoded image. Raises a `ValueError` if the images are not there or have
    changed.
    """
    # of an index the folder or address of its images, of `lotlip embed` what names the dataset
    source = table.settings.get("source")
    if source is None:
        raise ValueError(
            f"{table.folder} does not say where its images are, which the page shows: give `embed_to_table` the "
            "`source`, or use `lotlip search`."
        )
    if isinstance(source, str):
        if "://" in source:
            raise ValueError(
                f"{table.folder} is of images in {source}, which the page cannot show: use `lotlip search`."
            )
        return lambda key: read_unchanged(table, key, {"path": os.path.join(source, key), "bytes": None})
    if source["streaming"]:
        raise ValueError(
            f"{table.folder} holds embeddings of streamed data, which the page cannot show: use `lotlip search`."
        )
    if "image" not in table.settings["kinds"]:
        raise ValueError(
            f"{table.folder} holds no embeddings of images, which the page shows: use `lotlip search --kind`."
        )
    column = source["image_column"]
    dataset = load_named_data(source, key_column=table.settings["key_column"])
    table.check_settings({"data": hash_rows(dataset, table.settings)})
    dataset = undecoded(dataset.select_columns(column), column)
    return lambda key: read_unchanged(table, key, dataset[table.row(key)][column])


def read_unchanged(table: EmbeddingTable, key: str, image: dict) -> dict:
    """
    Returns an undecoded image. Raises an `UnreadableImageError` if the content of its file has changed since it was
    embedded.
    """
    path = find_image_path(image)
    stored = dict(table.read_signatures(one_of("key", [key]))).get(key)
    has_other_signature = stored and os.path.exists(path) and stored != sign_file(os.stat(path))
    if has_other_signature and table.read_hash(key) != hash_file(path):
        raise UnreadableImageError("The file has changed since it was embedded.")
    return image


def list_images(folder: str) -> list[str]:
    """Lists the paths of the images in a folder that an index has. A warning says what is left out."""
    scan = scan_folder(folder)
    left_out = [f"{count:,} {reason}" for reason, count in scan.left_out.items()]
    left_out += [f"the folder {name}, which may not be read" for name in sorted(scan.closed_folders)]
    if left_out:
        logger.warning(printable(f"Of {folder} files are left out: {', '.join(left_out)}."))
    images = [os.path.join(folder, name) for name in scan.files if is_indexed_file(name)]
    if not images:
        raise ValueError("there is no image")
    return images


@dataclass
class Changes:
    """
    What an update of an index has changed.

    Args:
        new (`int`):
            Images that were embedded for the first time.
        moved (`int`):
            Images that were embedded before, under another name or in another folder, or are copies of such.
        changed (`int`):
            Images that were embedded again.
        unreadable (`int`):
            New and changed files that cannot be read as an image; none of them is in the counts above.
        deleted (`int`):
            Images that are gone.
        left_out (`list[str]`):
            Sentences on what else is in the folder.
    """

    new: int = 0
    moved: int = 0
    changed: int = 0
    unreadable: int = 0
    deleted: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """
    How the files of a folder and its index differ. Files are known by their keys: their paths in the folder.

    Args:
        new (`dict[str, dict[str, int]]`):
            The signatures of files that the index does not have.
        changed (`dict[str, dict[str, int]]`):
            Those of files whose signature is another one: their content may be.
        retried (`dict[str, dict[str, int]]`):
            Those of unchanged files that could not be read, but perhaps can now.
        gone (`list[str]`):
            Keys of the index without a file.
        left_out (`list[str]`):
            Sentences on what else is in the folder.
    """

    new: dict[str, dict[str, int]]
    changed: dict[str, dict[str, int]]
    retried: dict[str, dict[str, int]]
    gone: list[str]
    left_out: list[str]

    @property
    def signatures(self) -> dict[str, dict[str, int]]:
        """Of all files that are looked at."""
        return {**self.new, **self.changed, **self.retried}


def check_folder_exists(folder: Path) -> None:
    """Raises a `FileNotFoundError` if the folder of an index is not there any more."""
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} is not there any more. What was indexed is kept.")


def compare(table: EmbeddingTable, folder: Path) -> Comparison:
    """
    Compares a folder of images with its index. Images in a folder that may not be read, or has become empty, are kept.
    Raises a `FileNotFoundError` if the folder, or all images in it, are not there any more.
    """
    check_folder_exists(folder)
    scan = scan_folder(folder)
    files, others = sign_images(scan)
    to_be_tried_again = {key for key, _ in table.read_signatures(table.is_to_be_tried_again)}
    result = Comparison(new=dict(files), changed={}, retried={}, gone=[], left_out=[])
    num_stored = 0
    folders_out_of_reach = as_keys(scan.closed_folders | scan.empty_folders)
    kept_folders = set()
    for key, signature in table.read_signatures():
        num_stored += 1
        if key not in files:
            parents = {parent.as_posix() for parent in PurePosixPath(key).parents}
            out_of_reach = parents & folders_out_of_reach
            kept_folders |= out_of_reach
            if not out_of_reach:
                result.gone.append(key)
            continue
        result.new.pop(key, None)
        if files[key] != signature:
            result.changed[key] = files[key]
        elif key in to_be_tried_again:
            result.retried[key] = files[key]
    if not files and num_stored > 0 and num_stored == len(result.gone):
        raise FileNotFoundError(
            f"There is no image in {folder} any more. The {num_stored:,} that were indexed are kept; to forget them: "
            f"lotlip search --forget {quote(str(folder))}"
        )
    emptied = kept_folders & as_keys(scan.empty_folders)
    result.left_out = describe_left_out(others, scan.closed_folders, emptied)
    return result


def as_keys(names: Iterable[str]) -> set[str]:
    """Writes paths in a folder as the keys of an index, which are the same on all systems."""
    return {PurePath(name).as_posix() for name in names}


def sign_images(scan: FolderScan) -> tuple[dict[str, dict[str, int]], Counter]:
    """
    Signs the images that a folder has: see [`sign_file`]. Returns the signatures by key, and the counts of other files
    by what they are.
    """
    files = {}
    others = scan.left_out.copy()
    for name, status in scan.files.items():
        if is_indexed_file(name):
            files[PurePath(name).as_posix()] = sign_file(status)
        else:
            others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    return files, others


def describe_left_out(
    others: Counter,
    closed_folders: Iterable[str],
    emptied: Iterable[str],
) -> list[str]:
    """Describes what of a folder is not in its index, or out of reach."""
    lines = []
    if others:
        counts = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common())
        lines.append(f"Other files, left out: {counts}.")
    if closed_folders:
        lines.append(f"Folders that may not be read: {', '.join(sorted(closed_folders))}.")
    if emptied:
        lines.append(f"Empty folders, whose indexed images are kept unless moved: {', '.join(sorted(emptied))}.")
    return lines
