# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts and images of many requests to embeddings, in batches that one thread computes."""

import asyncio
import base64
import logging
import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from starlette.exceptions import HTTPException

from ..data.images import IMAGE_ERRORS, SAFE_FORMATS, open_image, read_image
from ..encoder.batches import Batch, sort_texts
from ..encoder.dual_encoder import DualEncoder
from ..encoder.finite import find_nonfinite_weight
from ..utils.sub_captions import mark_query
from ..utils.terminal import without_stop
from ..utils.texts import is_invisible
from .arguments import ServingArguments


logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"(https?|ftp|file):/\S+", re.IGNORECASE)
MAX_CHARACTERS = 100_000  # of a text that are tokenized; models read a few thousand at most
MAX_PIXELS = 50_000_000  # of an image
MAX_WAITING = 1024  # texts and images of all requests at a time
# Base64, also with the other alphabet, or hexadecimal digits, longer than a word. An image in it
# begins like one of these files.
ENCODED = re.compile(r"[A-Za-z0-9+/_-]{64,}")
HEXADECIMAL = re.compile(r"[0-9a-f]+", re.IGNORECASE)
IMAGE_START = re.compile(
    rb"""
    \xff\xd8\xff                          # JPEG
    | \x89PNG
    | GIF8[79]a
    | RIFF.{4}WEBP
    | II\*\0 | MM\0\*                     # TIFF
    | BM.{4}\0{4}                         # BMP
    | .{4}ftyp(?:avi|hei|hev|mif)        # AVIF and HEIC
    | \0\0\0\x0c(?:jP|JX) | \xff\x4f\xff\x51  # JPEG 2000 and XL
    | \0\0\x01\0                          # ICO
    """,
    re.DOTALL | re.VERBOSE,
)


class RequestError(HTTPException):
    """
    Is raised where a request cannot be answered.

    Args:
        message (`str`): What is wrong with it.
        param (`str`, *optional*, defaults to `"input"`): The field of OpenAI's API that it is in.
        status (`int`, *optional*, defaults to 400): The HTTP status of the answer.
    """

    def __init__(self, message: str, param: str | None = "input", status: int = 400):
        headers = None
        if status == 503:
            headers = {"Retry-After": "1"}
        super().__init__(status, message, headers)
        self.param = param


class Embedded(NamedTuple):
    """
    Holds the answer to a request.

    Attributes:
        embeds (`torch.Tensor` of shape `(entries, dim)`): Normalized, in float32.
        num_tokens (`int`): How many tokens the model read of the texts.
        num_truncated (`int`): How many texts are longer than its limit.
        num_unknown (`int`): Of how many texts its tokenizer knows no word.
    """

    embeds: torch.Tensor
    num_tokens: int
    num_truncated: int
    num_unknown: int


class TokenizedRows(NamedTuple):
    """
    Holds the texts of a request as the model reads them.

    Attributes:
        rows (`list[dict[str, torch.Tensor]]`): The inputs of each text, of shape `(1, length)`.
        num_tokens (`int`): How many tokens they have, without padding.
        num_truncated (`int`): How many of them are longer than the model's limit.
        num_unknown (`int`): Of how many of them the tokenizer knows no word.
    """

    rows: list[dict[str, torch.Tensor]]
    num_tokens: int
    num_truncated: int
    num_unknown: int


class Embedder:
    """Embeds what requests ask for. While the model computes a batch, entries of other requests gather to the next."""

    def __init__(
        self,
        encoder: DualEncoder,
        limits: ServingArguments,
        batch_size: int = 64,
    ):
        self.encoder = encoder
        self.limits = limits
        self.batch_size = batch_size
        # that of an embedding first, and others that the model was trained for
        self.dims = [encoder.dim, *(dim for dim in encoder.matryoshka_dims if dim < encoder.dim)]
        self.queue = asyncio.Queue()
        self.num_waiting = 0
        self.max_waiting = max(MAX_WAITING, limits.max_batch_size)
        self.readers = ThreadPoolExecutor(max_workers=os.cpu_count())  # no more images are decoded at once
        self.tokenizer_thread = ThreadPoolExecutor(max_workers=1)  # a fast tokenizer serves one thread at a time
        self.model_thread = ThreadPoolExecutor(max_workers=1)

    async def embed(self, entries: list[str], splitter: str | None = None) -> Embedded:
        """
        Embeds texts, with a `splitter` as queries: see [`mark_query`], and images. Raises a `RequestError` if one
        cannot be read, or too many are waiting.
        """
        if self.num_waiting + len(entries) > self.max_waiting:
            raise RequestError(
                f"The server is busy: it has {self.num_waiting} texts and images. Try again.", None, 503
            )
        self.num_waiting += len(entries)
        try:
            images = {index: entry.strip() for index, entry in enumerate(entries) if is_image(entry, index)}
            texts = [entry for index, entry in enumerate(entries) if index not in images]
            contents = await self.open_images(images)
            pixels, tokenized = await self.prepare(contents, texts, splitter)
            loop = asyncio.get_running_loop()
            rows = iter(tokenized.rows)
            futures = [loop.create_future() for _ in entries]
            for index, future in enumerate(futures):
                if index in pixels:
                    self.queue.put_nowait(Batch([future], pixels[index], "image"))
                else:
                    self.queue.put_nowait(Batch([future], next(rows), "text"))
            found = await asyncio.gather(*futures)
            # 10 ms for a full request, seconds if the weights are to be looked at: other requests go on meanwhile
            embeds = await loop.run_in_executor(self.readers, check_embeds, found, self.encoder.model)
            return Embedded(embeds, tokenized.num_tokens, tokenized.num_truncated, tokenized.num_unknown)
        finally:
            self.num_waiting -= len(entries)

    async def open_images(self, images: dict[int, str]) -> dict[int, bytes]:
        """
        Reads the files in data URLs, by the indices of their entries. Raises a `RequestError` if one is no image, or
        they have too many pixels.
        """
        loop = asyncio.get_running_loop()
        opening = [loop.run_in_executor(self.readers, open_data_url, index, entry) for index, entry in images.items()]
        contents = self.check_pixels(await asyncio.gather(*opening))
        return dict(zip(images, contents))

    async def prepare(
        self, images: dict[int, bytes], texts: list[str], splitter: str | None
    ) -> tuple[dict[int, dict[str, torch.Tensor]], TokenizedRows]:
        """
        Makes the inputs of the model, images and texts at once: those of each image, of shape `(1, ...)`, by the index
        of its entry, and those of the texts.
        """
        loop = asyncio.get_running_loop()
        reading = [
            loop.run_in_executor(self.readers, self.read_image, index, content) for index, content in images.items()
        ]
        tokenizing = loop.run_in_executor(self.tokenizer_thread, self.read_texts, texts, splitter)
        *pixels, tokenized = await asyncio.gather(*reading, tokenizing)
        return dict(zip(images, pixels)), tokenized

    def read_texts(self, texts: list[str], splitter: str | None) -> TokenizedRows:
        """Tokenizes texts, with a `splitter` as queries: see [`mark_query`]."""
        if not texts:
            return TokenizedRows([], 0, 0, 0)
        beginnings = [text[:MAX_CHARACTERS] for text in texts]
        if splitter is not None:
            beginnings = [mark_query(text, splitter) for text in beginnings]
        tokens, truncated = self.encoder.preprocessing.tokenize(beginnings)
        if "attention_mask" in tokens:
            num_tokens = int(tokens["attention_mask"].sum())
        else:  # as of SigLIP
            counts = self.encoder.preprocessing.count_tokens(beginnings)
            num_tokens = sum(min(count, self.encoder.max_length) for count in counts)
        rows = []
        num_truncated = 0
        for row, text in enumerate(texts):
            rows.append({name: tensor[row : row + 1] for name, tensor in tokens.items()})
            if truncated[row] or len(text) > MAX_CHARACTERS:
                num_truncated += 1
        num_unknown = sum(self.encoder.preprocessing.find_unknown(tokens["input_ids"]))
        self.encoder.warn_of_unknown(num_unknown, len(texts))
        return TokenizedRows(rows, num_tokens, num_truncated, num_unknown)

    def check_pixels(self, images: list[tuple[bytes, int]]) -> list[bytes]:
        """Returns the files of images, each with its pixels. Raises a `RequestError` if they are too many in sum."""
        num_pixels = sum(num for _, num in images)
        if num_pixels > self.limits.max_pixels:
            raise RequestError(
                f"The images of the request have {num_pixels} pixels, the max is "
                f"{self.limits.max_pixels}: send fewer in a request, or smaller ones.",
                status=413,
            )
        return [content for content, _ in images]

    def read_image(self, index: int, content: bytes) -> dict[str, torch.Tensor]:
        """Makes the inputs of an image, of shape `(1, ...)`. Raises a `RequestError` if it cannot be read."""
        try:
            preprocessing = self.encoder.preprocessing
            image = read_image({"bytes": content}, resizing=preprocessing.resizing, formats=SAFE_FORMATS)
            return preprocessing.prepare_images([image])
        except IMAGE_ERRORS as error:
            raise RequestError(f"`input[{index}]` is no image that can be read: {without_stop(error)}.") from error

    async def run(self) -> None:
        """Computes what is waiting, until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while not self.queue.empty() and len(waiting) < self.batch_size:
                waiting.append(self.queue.get_nowait())
            for future, embedding in await loop.run_in_executor(self.model_thread, self.compute, waiting):
                if not future.done():  # the client has not gone
                    future.set_result(embedding)

    def compute(self, waiting: list[Batch[asyncio.Future]]) -> list[tuple[asyncio.Future, torch.Tensor | None]]:
        """
        Computes the embedding of each entry, of shape `(dim,)`, normalized; None where the model fails: after an error
        they are computed one by one.
        """
        try:
            computed = []
            for batch in self.merge(waiting):
                computed += zip(batch.entries, self.encoder.embed(batch))
            return computed
        except Exception as error:
            if len(waiting) > 1:
                return [self.compute([batch])[0] for batch in waiting]
            logger.error("The model failed at a text or an image.", exc_info=error)
            return [(waiting[0].entries[0], None)]

    def merge(self, waiting: list[Batch[asyncio.Future]]) -> list[Batch[asyncio.Future]]:
        """Merges batches of one to few batches: of texts, and of the images whose inputs have the same shapes."""
        texts, images = [], defaultdict(list)
        for batch in waiting:
            if batch.modality == "text":
                texts.append(batch)
            else:
                shapes = tuple((name, tensor.shape[1:]) for name, tensor in batch.inputs.items())
                images[shapes].append(batch)
        batches = list(sort_texts(texts, self.encoder.preprocessing))
        for group in images.values():
            inputs = {}
            for name in group[0].inputs:
                inputs[name] = torch.cat([batch.inputs[name] for batch in group])
            batches.append(Batch([batch.entries[0] for batch in group], inputs, "image"))
        return batches


def is_image(entry: str, index: int) -> bool:
    """
    Says whether an entry is an image, and not a text. Raises a `RequestError` if it is empty, an address, or an image
    in another form than a data URL.
    """
    if ADDRESS.fullmatch(entry.strip()):
        raise RequestError(f"`input[{index}]` is an address, and this server fetches none: send a data URL.")
    if is_invisible(entry):
        raise RequestError(f"`input[{index}]` is empty: send a text or an image.")
    if entry.lstrip()[:5].lower() == "data:":
        return True
    if holds_encoded_image("".join(entry.split())):
        raise RequestError(
            f"`input[{index}]` is an image that does not begin as a data URL: send `data:image/jpeg;base64,...`."
        )
    return False


def holds_encoded_image(entry: str) -> bool:
    """
    Says whether a string without white space is an image in base64 or hexadecimal digits, whatever
    stands around it: `b'...'`, quotation marks, a part of a data URL, JSON. A longer text may quote one.
    """
    for run in ENCODED.finditer(entry):
        encoded = run.group()
        if len(encoded) < len(entry) / 2:
            continue
        if HEXADECIMAL.fullmatch(encoded):
            start = bytes.fromhex(encoded[:32])
        else:
            # base64 for URLs has two other letters
            standard = encoded.replace("-", "+").replace("_", "/")
            start = base64.b64decode(standard[:32])
        if IMAGE_START.match(start):
            return True
    return False


def open_data_url(index: int, entry: str) -> tuple[bytes, int]:
    """
    Reads the file in a data URL, and how many pixels the image in it has, which is not decoded.

    Raises:
        `RequestError`: if there is no image, or it has too many pixels.
    """
    header, _, data = entry.partition(",")
    if not header.lower().endswith(";base64"):
        raise RequestError(
            f"`input[{index}]` begins with `data:`, so it must be an image: `data:image/jpeg;base64,...`."
        )
    try:
        content = base64.b64decode(data, validate=True)
        width, height = open_image(content, SAFE_FORMATS).size
    except IMAGE_ERRORS as error:
        raise RequestError(f"`input[{index}]` is no image that can be read: {without_stop(error)}.") from error
    if width * height > MAX_PIXELS:
        raise RequestError(f"`input[{index}]` has {width} x {height} pixels, the max is {MAX_PIXELS}.", status=413)
    return content, width * height


def check_embeds(embeds: list[torch.Tensor | None], model: torch.nn.Module) -> torch.Tensor:
    """
    Stacks the embeddings of entries by a model, each of shape `(dim,)`, to shape `(entries, dim)`.

    Raises:
        `RequestError`: if the model failed at one (None), or it is not finite; names the first.
    """
    for index, embedding in enumerate(embeds):
        if embedding is None:
            raise RequestError(f"The model failed at `input[{index}]`: the log of the server says why.", status=500)
        if embedding.isfinite().all():
            continue
        weight = find_nonfinite_weight(model)
        if weight is not None:
            raise RequestError(
                f"The model has no finite embedding of `input[{index}]`, since its weights are not "
                f"finite, `{weight}` first: start the server with another model.",
                status=500,
            )
        raise RequestError(
            f"The model has no finite embedding of `input[{index}]`: send another one, or start the "
            "server with `--dtype float32`.",
            status=500,
        )
    return torch.stack(embeds)
