# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Webdataset shards are read to their end, damaged texts are no end of a run, and JSON here keeps its types."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Any, NamedTuple

from datasets import DatasetBuilder, DownloadConfig, DownloadManager, Features, Image, Json, SplitGenerator, Value
from datasets.filesystems import EXTENSION_TO_COMPRESSION_FS_FILE_CLS
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..utils.terminal import without_stop
from .files_elsewhere import open_binary
from .folder import list_files, list_other_splits, select_split
from .images import is_address
from .options import hash_readers, make_other_reader


logger = logging.get_logger(__name__)

TEXT_ENDINGS = ("txt", "text", "transcript")
JSON_ENDINGS = ("json", "jsn")
NUMBER_ENDINGS = ("cls", "cls2", "index", "inx")
# A member's name: the key of its sample, and the column
MEMBER_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
# How many members of the first shard, and of each of the others, say which columns there are
NUM_MEMBERS = 1000
NUM_MEMBERS_OF_OTHERS = 20
# How many samples of the first shard elsewhere do so
NUM_FIRST_SAMPLES = 20
BYTES_AT_ONCE = 2**20
# What opens a compressed file, by its first bytes
OPENERS_BY_START = {
    re.compile(rb"\x1f\x8b"): gzip.open,
    re.compile(rb"BZh[1-9]1AY&SY"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
    re.compile(rb"]\x00\x00\x80"): lzma.open,
}
ZIP_START = b"PK\x03\x04"
NUM_FIRST_BYTES = 10
# How much is kept of what was read last: tarfile reads a record at a time
NUM_KEPT_BYTES = 2 * tarfile.RECORDSIZE
# A tar file ends with two blocks of zeros
NUM_ZEROS_AT_END = 2 * tarfile.BLOCKSIZE


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
    Reads shards as `datasets` does, but to their end, and images out of them: where a shard is damaged `datasets` may
    end without a word, and it takes a file in the working directory for an image of the same name. A sample in parts,
    of which it would make several, is an error.
    """

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        splits = super()._split_generators(dl_manager)
        self.left_out = set()
        self.names = {}
        for split in splits:
            self.names.update(zip(split.gen_kwargs["tar_paths"], self.config.data_files[split.name]))
        return splits

    def _generate_examples(self, tar_paths: list[str], tar_iterators: list) -> Iterator[tuple[Any, dict]]:
        config = DownloadConfig(token=self.token, storage_options=self.storage_options)
        members = []
        for path, of_archive in zip(tar_paths, tar_iterators):
            if is_address(path) or is_readable_tar(path):
                of_archive = iterate_members(path, self.names[path], config, of_archive)
            members.append(of_archive)
        images = [column for column, kind in self.info.features.items() if isinstance(kind, Image)]
        shard = None
        parts = {}
        for key, sample in super()._generate_examples(tar_paths, members):
            if sample["__url__"] != shard:
                shard = sample["__url__"]
                parts = {}
            part = {name for name, value in sample.items() if value is not None and not name.startswith("__")}
            if part and part.isdisjoint(parts.setdefault(sample["__key__"], part)):
                raise ValueError(
                    f"The shard {self.names[shard]} has the members of the sample {sample['__key__']} in several "
                    "parts, with others between them: write it anew, the members of each sample one after another."
                )
            for column in sample:
                if column not in self.info.features and column not in ("__key__", "__url__"):
                    self.leave_out(sample, column)
            for column in images:
                if sample[column] is not None:
                    sample[column] = {"bytes": sample[column]["bytes"], "path": None}
            yield key, sample

    def leave_out(self, sample: dict, column: str) -> None:
        """
        Warns of a member of a sample that is in no column, and notes it in the description of the dataset, which stays
        in the cache with its rows.
        """
        if column in self.left_out:
            return
        self.left_out.add(column)
        told = f"Members of shards in no column are left out: .{column}, as of {sample['__key__']}.\n"
        logger.warning_once(told.strip())
        if f" .{column}, as of " not in self.info.description:  # of a stream after rows it is in the cache
            self.info.description += told

    def warn_of_missing(self) -> None:
        """Says what of the shards is not in the rows, built now or by an earlier run."""
        for told in self.info.description.splitlines():
            logger.warning_once(told.strip())


class WholeShards(OtherShards):
    """Reads shards of which a member that is in no column is an error."""

    def leave_out(self, sample: dict, column: str) -> None:
        """Raises a `ValueError` at a member of a sample that is in no column."""
        raise ValueError(
            f"The shard {sample['__url__']} has a member {sample['__key__']}.{column}, but the samples at the "
            f"beginning of the shards have no .{column}, and so it would be lost: begin with a shard whose samples "
            "have all members, or write this one anew without."
        )


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


class ShardsElsewhere(Shards):
    """Reads shards of which only the first samples are known: a later member that is in no column is left out."""

    def leave_out(self, sample: dict, column: str) -> None:
        """Warns of a member of a sample that is in no column."""
        OtherShards.leave_out(self, sample, column)


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


class ForwardFile:
    """
    Reads a file from its beginning on, and keeps what was read last: a stream from elsewhere cannot go back.

    Args:
        file (`IO[bytes]`): The file.
        start (`bytes`, *optional*, defaults to `b""`): What was read of it already.
    """

    def __init__(self, file: IO[bytes], start: bytes = b""):
        self.file = file
        self.start = start
        self.position = 0
        self.is_over = False
        self.last = deque()
        self.num_kept = 0

    def read(self, size: int = -1) -> bytes:
        """Reads at most `size` bytes, and none at the end."""
        if self.is_over:  # a stream from elsewhere may complain of being asked again
            return b""
        if size < 0:
            content = self.start + self.file.read()
        else:
            content = self.start[:size] or self.file.read(size)
        self.is_over = not content and size != 0
        self.start = self.start[len(content) :]
        self.position += len(content)
        self.last.append(content)
        self.num_kept += len(content)
        while self.num_kept - len(self.last[0]) >= NUM_KEPT_BYTES:
            self.num_kept -= len(self.last.popleft())
        return content

    def iterate_rest(self, position: int) -> Iterator[bytes]:
        """Reads the rest of the file from a position on that is in what was read last."""
        kept = b"".join(self.last)
        yield kept[max(0, len(kept) - (self.position - position)) :]
        while content := self.read(BYTES_AT_ONCE):
            yield content


def decompress(file: IO[bytes]) -> ForwardFile:
    """Returns a file to read, decompressed if its first bytes are those of such a file."""
    start = b""
    while len(start) < NUM_FIRST_BYTES:
        content = file.read(NUM_FIRST_BYTES - len(start))
        if not content:
            break
        start += content
    forward = ForwardFile(file, start)
    for first_bytes, opener in OPENERS_BY_START.items():
        if first_bytes.match(start):
            return ForwardFile(opener(forward, "rb"))
    return forward


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Reads a member, but for one of no sample, which may be large."""
    file = tar.extractfile(member)
    if MEMBER_NAME.fullmatch(member.name):
        return io.BytesIO(file.read())
    return file


def iterate_members(
    shard: str,
    name: str | None = None,
    config: DownloadConfig | None = None,
    of_zip: Iterable[tuple[str, IO[bytes]]] = (),
) -> Iterator[tuple[str, IO[bytes]]]:
    """
    Reads the members of a tar file that may be compressed: their names, and their contents as open files. Hidden files
    are passed over, as by `datasets`.

    Args:
        shard (`str`):
            Its path, or its address.
        name (`str`, *optional*):
            What errors call it. Default: that.
        config (`DownloadConfig`, *optional*):
            How it is read from elsewhere.
        of_zip (`Iterable[tuple[str, IO[bytes]]]`, *optional*):
            What `datasets` reads of it, if it is a zip archive.

    Raises:
        `ValueError`: if a member is a link, which `datasets` passes over. If there is more than zeros after the last
            member, or fewer of them than at the end of a tar file: the tarfile module ends where the header of a
            member is damaged or cut off, and at the end of the first of two tar files that were put together. Or if
            the file cannot be read.
    """
    name = name or shard
    try:
        with open_binary(shard, config, block_size=0) as opened:
            file = decompress(opened)
            if file.start.startswith(ZIP_START):
                yield from of_zip
                return
            end = 0
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for member in tar:
                    end = tar.offset  # of the next member
                    is_hidden = os.path.basename(member.name).startswith((".", "__"))
                    if member.isreg():
                        if not is_hidden:
                            yield member.name, read_member(tar, member)
                    elif (member.islnk() or member.issym()) and not is_hidden and MEMBER_NAME.fullmatch(member.name):
                        raise ValueError(
                            f"The shard {name} has a link in place of the file {member.name}, which would be lost: "
                            "write it anew by `tar --dereference --hard-dereference`."
                        )
                    tar.members = []  # else all are kept in memory
            num_zeros = 0
            for content in file.iterate_rest(end):
                if content.strip(b"\0"):
                    raise ValueError(
                        f"The shard {name} cannot be read after byte {end}: a member there is damaged, or two tar "
                        "files were put together. Write it anew, or leave it out."
                    )
                num_zeros += len(content)
            if num_zeros < NUM_ZEROS_AT_END:
                raise ValueError(f"The shard {name} was cut off: write it anew, or leave it out.")
    except (EOFError, OSError, lzma.LZMAError, tarfile.TarError, zlib.error) as error:
        cause = without_stop(error)
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise ValueError(f"The shard {name} cannot be read: {cause}. Try again, or leave it out.") from error
        raise ValueError(f"The shard {name} cannot be read: {cause}. Write it anew, or leave it out.") from error


def list_columns(shards: list[str]) -> list[str]:
    """Lists the endings of the members at the beginning of each shard, in their order."""
    names = [name for name, _ in islice(iterate_members(shards[0]), NUM_MEMBERS)]
    for shard in shards[1:]:
        if is_readable_tar(shard):
            names += [name for name, _ in islice(iterate_members(shard), NUM_MEMBERS_OF_OTHERS)]
    return list_endings(names)


def list_first_columns(shard: str, config: DownloadConfig) -> list[str]:
    """Lists the endings of the members of the first samples of a shard elsewhere; none of a zip archive."""
    names = []
    keys = set()
    for name, _ in iterate_members(shard, config=config):
        match = MEMBER_NAME.fullmatch(name)
        if match is not None:
            keys.add(match[1])
        if len(keys) > NUM_FIRST_SAMPLES:
            break
        names.append(name)
    return list_endings(names)


def list_endings(names: Iterable[str]) -> list[str]:
    """Lists what follows the keys of samples in names of members, each once."""
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


def open_shards(builder: DatasetBuilder, split: str, are_local: bool) -> DatasetBuilder:
    """
    Finds what reads shards. `datasets` would take the types of the first five samples for those of all, and make the
    JSON value "007" a 7: on this machine the types are those of the endings, and the columns those of all splits.

    Args:
        builder (`DatasetBuilder`): That of `datasets`.
        split (`str`): The split that is read.
        are_local (`bool`): Whether its shards are on this machine: in this module, of which `datasets` makes streams,
            `os.path.isfile` may be that of `datasets`, which knows of other machines.
    """
    shards = list_files(builder, split)
    if not shards:  # offline, where there are rows in the cache alone
        return builder
    if not are_local or not is_readable_tar(shards[0]):
        return open_other_shards(builder, split)
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


def open_other_shards(builder: DatasetBuilder, split: str) -> OtherShards:
    """
    Makes what reads shards elsewhere, or whose first is no tar file. The types are those of a card, or those of the
    endings of the first samples of each split; of zip archives those that `datasets` finds. Rows lie in the cache
    where `datasets` looks for them offline.
    """
    reader = OtherShards
    info = builder.info.copy()
    if info.features is None:
        config = DownloadConfig(token=builder.token, storage_options=builder.storage_options)
        columns = list_first_columns(list_files(builder, split)[0], config)
        for shards in list_other_splits(builder, split):
            if shards:
                with suppress(ValueError):  # which is said when that split is read
                    columns += list_first_columns(shards[0], config)
        if columns:
            reader = ShardsElsewhere
            types = {column: get_column_type(column) for column in columns}
            info.features = Features({**types, "__key__": Value("string"), "__url__": Value("string")})
    return make_other_reader(reader, builder, info)


def check_shards(files: Iterable[str]) -> None:
    """Raises a `ValueError` if a local shard was cut off: `datasets` does not ask for the two blocks at the end."""
    for shard in files:
        if shard.endswith(".tar") and os.path.isfile(shard):
            with open(shard, "rb") as file:
                start = file.read(NUM_FIRST_BYTES)
                if any(first_bytes.match(start) for first_bytes in OPENERS_BY_START):
                    continue  # compressed, whatever its name
                file.seek(max(0, os.path.getsize(shard) - NUM_ZEROS_AT_END))
                if file.read() != bytes(NUM_ZEROS_AT_END):
                    raise ValueError(f"The shard {shard} was cut off: write it anew, or leave it out.")
