# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Webdataset shards on this machine are read: damaged members are no end of a run, and JSON keeps its types."""

import json
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any, NamedTuple

from datasets import DatasetBuilder, Features, Image, Json, Value
from datasets.filesystems import EXTENSION_TO_COMPRESSION_FS_FILE_CLS
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..utils.files import hash_bytes
from ..utils.terminal import without_stop
from .folder import list_files, list_other_splits, select_split
from .options import hash_readers
from .row_files import OPENERS


logger = logging.get_logger(__name__)

TEXT_ENDINGS = ("txt", "text", "transcript")
JSON_ENDINGS = ("json", "jsn")
NUMBER_ENDINGS = ("cls", "cls2", "index", "inx")
# A member's name: the key of its sample, and the column
MEMBER_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
# How many members of the first shard, and of each of the others, say which columns there are
NUM_MEMBERS = 1000
NUM_MEMBERS_OF_OTHERS = 20
BYTES_AT_ONCE = 2**20


class Damaged(NamedTuple):
    """What is in place of the content of a damaged member."""

    problem: str


def decode_text(content: bytes) -> str | Damaged:
    """Decodes a text in a shard."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        return Damaged(f"a text that is not UTF-8 ({without_stop(error)})")


def decode_id(content: bytes) -> str | Damaged:
    """Decodes an identifier in a shard, perhaps with a line break after it."""
    text = decode_text(content)
    return text.strip() if isinstance(text, str) else text


def decode_json(content: bytes) -> object:
    """Decodes a JSON value in a shard, but for a text, which `datasets` decodes, or returns [`Damaged`]."""
    try:
        value = json.loads(content)
    except ValueError as error:
        return Damaged(f"damaged JSON ({without_stop(error)})")
    if isinstance(value, str):
        return json.dumps(value)  # else "007" would be JSON of a 7
    return value


class OtherShards(WebDataset):
    """
    Reads shards as `datasets` does, but for images: each is what the shard has. `datasets` would take a file of the
    same name in the working directory.
    """

    def _generate_examples(self, tar_paths: list[str], tar_iterators: list) -> Iterator[tuple[Any, dict]]:
        images = [column for column, kind in self.info.features.items() if isinstance(kind, Image)]
        for key, sample in super()._generate_examples(tar_paths, tar_iterators):
            for column in images:
                if sample[column] is not None:
                    sample[column] = {"bytes": sample[column]["bytes"], "path": None}
            yield key, sample


class WholeShards(OtherShards):
    """
    Reads shards to the end: what `datasets` would pass over in silence is an error, also a member that is in no
    column, and a sample in parts, of which it would make several.
    """

    def _generate_examples(self, tar_paths: list[str], tar_iterators: list) -> Iterator[tuple[Any, dict]]:
        members = []
        for path, of_archive in zip(tar_paths, tar_iterators):
            members.append(iterate_members(path) if is_readable_tar(path) else of_archive)
        shard = None
        parts = {}
        for key, sample in super()._generate_examples(tar_paths, members):
            if sample["__url__"] != shard:
                shard = sample["__url__"]
                parts = {}
            part = {name for name, value in sample.items() if value is not None and not name.startswith("__")}
            if part and part.isdisjoint(parts.setdefault(sample["__key__"], part)):
                raise ValueError(
                    f"The shard {shard} has the members of the sample {sample['__key__']} in several parts, with "
                    "others between them: write it anew, the members of each sample one after another."
                )
            for column in sample:
                if column not in self.info.features:
                    raise ValueError(
                        f"The shard {sample['__url__']} has a member {sample['__key__']}.{column}, but the samples at "
                        f"the beginning of the shards have no .{column}, and so it would be lost: begin with a shard "
                        "whose samples have all members, or write this one anew without."
                    )
            yield key, sample


class Shards(WholeShards):
    """
    Reads whole shards; texts and JSON that are damaged are none, with a warning. Their number is noted in the
    description of the dataset, which stays in the cache with its rows. Members of other endings stay as they are.
    """

    DECODERS = {
        **dict.fromkeys(TEXT_ENDINGS, decode_text),
        **dict.fromkeys(JSON_ENDINGS, decode_json),
        **dict.fromkeys(NUMBER_ENDINGS, int),
        "id": decode_id,
    }

    def _generate_examples(self, tar_paths: list[str], tar_iterators: list) -> Iterator[tuple[Any, dict]]:
        num_damaged = 0
        first = None
        for key, sample in super()._generate_examples(tar_paths, tar_iterators):
            for column, value in sample.items():
                if isinstance(value, Damaged):
                    sample[column] = None
                    num_damaged += 1
                    first = first or f"{sample['__key__']}.{column} of {sample['__url__']} is {value.problem}"
                    logger.warning_once(f"Damaged texts and JSON in shards are read as none: {first}.")
            yield key, sample
        if num_damaged > 0:
            self.info.description += (
                f"{num_damaged} texts and JSON files in shards are damaged, and read as none: {first}. "
            )

    def warn_of_damaged_members(self) -> None:
        """Says how many texts and JSON files are none in the rows, built now or by an earlier run."""
        if self.info.description:
            logger.warning_once(self.info.description.strip())


def get_column_type(column: str) -> Image | Json | Value:
    """Returns the type of what members with an ending such as `jpg`, `txt`, `caption.json` or `json.gz` hold."""
    name, dot, ending = column.lower().rpartition(".")
    if dot + ending in EXTENSION_TO_COMPRESSION_FS_FILE_CLS:  # by which `datasets` decompresses a member
        ending = name.rpartition(".")[2]
    if ending in WebDataset.IMAGE_EXTENSIONS:
        return Image()
    if ending in (*TEXT_ENDINGS, "id"):
        return Value("string")
    if ending in JSON_ENDINGS:
        return Json()
    if ending in NUMBER_ENDINGS:  # `cls` is the index of a class
        return Value("int64")
    return Value("binary")


def is_readable_tar(shard: str) -> bool:
    """Returns whether a shard on this machine begins as a tar file does that [`iterate_members`] can read."""
    try:
        return os.path.getsize(shard) > 0 and tarfile.is_tarfile(shard)
    except (EOFError, OSError, lzma.LZMAError, zlib.error):  # who reads it says why
        return False


def iterate_members(shard: str) -> Iterator[tuple[str, IO[bytes]]]:
    """
    Reads the members of a tar file that may be compressed: names and open files, each to be read before the next one.
    Hidden files are passed over, as by `datasets`.

    Raises:
        `ValueError`: if a member is a link, which `datasets` passes over. If there is more than zeros after the last
            member: the tarfile module ends where the header of a member is damaged, and at the end of the first of two
            tar files that were put together. Or if the file cannot be read.
    """
    opener = OPENERS.get(os.path.splitext(shard)[1].lower(), open)
    try:
        with opener(shard, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            end = 0
            for member in tar:
                end = member.offset_data
                is_hidden = os.path.basename(member.name).startswith((".", "__"))
                if member.isreg():
                    end += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    if not is_hidden:
                        yield member.name, tar.extractfile(member)
                elif (member.islnk() or member.issym()) and not is_hidden and MEMBER_NAME.fullmatch(member.name):
                    raise ValueError(
                        f"The shard {shard} has a link in place of the file {member.name}, which would be lost: write "
                        "it anew by `tar --dereference --hard-dereference`."
                    )
                tar.members = []  # else all are kept in memory
            if opener is open and not shard.lower().endswith(".tar"):
                return
            file.seek(end)
            while block := file.read(BYTES_AT_ONCE):
                if block.strip(b"\0"):
                    raise ValueError(
                        f"The shard {shard} cannot be read after byte {end}: a member there is damaged, or two tar "
                        "files were put together. Write it anew, or leave it out."
                    )
    except (EOFError, OSError, lzma.LZMAError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"The shard {shard} cannot be read: {without_stop(error)}. Write it anew, or leave it out."
        ) from error


def list_columns(shards: list[str]) -> list[str]:
    """Lists the endings of the members at the beginning of each shard, in their order."""
    names = [name for name, _ in islice(iterate_members(shards[0]), NUM_MEMBERS)]
    for shard in shards[1:]:
        if is_readable_tar(shard):
            names += [name for name, _ in islice(iterate_members(shard), NUM_MEMBERS_OF_OTHERS)]
    matches = map(MEMBER_NAME.fullmatch, names)
    return list(dict.fromkeys(match[2] for match in matches if match is not None))


def list_columns_of_others(other_splits: Iterable[list[str]]) -> list[str]:
    """Lists the columns of the first shard of each other split, without those splits that cannot be read here."""
    columns = []
    for shards in other_splits:
        if shards and is_readable_tar(shards[0]):
            try:
                columns += list_columns(shards[:1])
            except ValueError:  # which is said when that split is read
                continue
    return columns


def open_shards(builder: DatasetBuilder, split: str) -> DatasetBuilder:
    """
    Finds what reads shards. `datasets` would take the types of the first five samples for those of all, and make the
    JSON value "007" a 7: on this machine the types are those of the endings, and the columns those of all splits.

    Args:
        builder (`DatasetBuilder`): That of `datasets`.
        split (`str`): The split that is read.
    """
    shards = list_files(builder, split)
    if not shards:  # offline, where there are rows in the cache alone
        return builder
    if not all(map(os.path.isfile, shards)) or not is_readable_tar(shards[0]):
        return open_other_shards(builder)
    # else `datasets` would look for types in the last split
    data_files = select_split(builder.config.data_files, split)
    types = {}
    for column in list_columns(shards):
        types[column] = get_column_type(column)
    if not types:  # which `datasets` refuses
        return WholeShards(data_files=data_files, hash=hash_readers())
    for column in list_columns_of_others(list_other_splits(builder, split)):
        types[column] = get_column_type(column)
    features = Features({**types, "__key__": Value("string"), "__url__": Value("string")})
    return Shards(data_files=data_files, features=features, hash=hash_readers())


def open_other_shards(builder: DatasetBuilder) -> OtherShards:
    """
    Makes what reads shards elsewhere, or whose first is no tar file, with the types that `datasets` finds or a card
    says. Their rows lie in the cache where `datasets` looks for them offline.
    """
    reader = OtherShards(
        base_path=builder.base_path,
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        config_id=builder.config_id,
        repo_id=builder.repo_id,
        token=builder.token,
        storage_options=builder.storage_options,
        data_files=builder.config.data_files,
        info=builder.info.copy(),
        # the first changes with the files of a dataset of the Hub
        hash=hash_bytes(f"{builder.hash} {hash_readers()}".encode()),
    )
    reader.info.builder_name = builder.info.builder_name
    return reader


def check_shards(files: Iterable[str]) -> None:
    """Raises a `ValueError` if a local shard was cut off: `datasets` does not ask for the two blocks at the end."""
    for shard in files:
        if shard.endswith(".tar") and os.path.isfile(shard):
            with open(shard, "rb") as file:
                file.seek(max(0, os.path.getsize(shard) - 1024))
                if file.read() != bytes(1024):
                    raise ValueError(f"The shard {shard} was cut off: write it anew, or leave it out.")
