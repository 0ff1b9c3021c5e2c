# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts and pictures of many requests to embeddings, in batches that one thread computes."""

import asyncio
import base64
import binascii
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import PIL.Image
import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_ERRORS, SAFE_FORMATS, open_image, read_image
from ..embedding.arguments import StoreArguments
from ..embedding.batches import Batch, embed_batch, embed_texts, make_batches, tokenize, tokenize_and_count
from ..embedding.features import prepare_images
from ..network import is_public
from .arguments import ServingArguments
from .fetching import FetchError, fetch


logger = logging.getLogger(__name__)

DATA_URL = re.compile(r"data:image/[^,]*,", re.IGNORECASE)
WEB_URL = re.compile(r"https?://\S+", re.IGNORECASE)
MAX_CHARACTERS = 100_000  # of a text; models read a few thousand at most
MAX_FETCHES = 8  # files that are fetched at once


class RequestError(Exception):
    """
    What is wrong with a request.

    Args:
        message (`str`):
            In words for whoever sent it.
        param (`str`, *optional*):
            The field that it is about.
        status (`int`, *optional*, defaults to 400):
            Of HTTP.
        code (`str`, *optional*):
            OpenAI's name of the mistake.
    """

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code
        self.headers = {"Retry-After": "1"} if status == 503 else None


class Embedded(NamedTuple):
    """
    The answer to a request.

    Args:
        embeds (`torch.Tensor` of shape `(entries, dim)`):
            Normalised, in float32.
        num_tokens (`int`):
            How many the model read of the texts.
        num_truncated (`int`):
            How many of the texts were longer.
    """

    embeds: torch.Tensor
    num_tokens: int
    num_truncated: int


class Embedder:
    """
    Embeds what requests ask for. While the model computes a batch, the entries of other requests gather to the next.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        limits (`ServingArguments`):
            What a request may ask for.
        batch_size (`int`, *optional*, defaults to 64):
            The most texts and pictures that are computed at once.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens; by default at the tokenizer's `model_max_length`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        limits: ServingArguments,
        batch_size: int = 64,
        max_length: int | None = None,
    ):
        self.model, self.processor, self.limits = model, processor, limits
        self.batch_size, self.max_length = batch_size, max_length
        dim = embed_texts(model, tokenize(processor, ["a"])).shape[-1]
        # that of an embedding first, and others that the model was trained for
        self.dims = [dim, *(other for other in getattr(model.config, "matryoshka_dims", None) or () if other < dim)]
        self.queue, self.fetches = asyncio.Queue(), asyncio.Semaphore(MAX_FETCHES)
        self.readers = ThreadPoolExecutor(max_workers=os.cpu_count())  # no more pictures are decoded at once
        self.tokenizer_thread = ThreadPoolExecutor(max_workers=1)  # a fast tokenizer serves one thread at a time
        self.model_thread = ThreadPoolExecutor(max_workers=1)

    async def embed(self, entries: list[str]) -> Embedded:
        """
        Embeds texts and pictures. What is cancelled while it waits is not computed.

        Raises:
            `RequestError`: if an entry is no text and no picture that can be read.
        """
        images = {index: entry for index, entry in enumerate(entries) if is_picture(entry)}
        texts = {index: check_text(entry, index) for index, entry in enumerate(entries) if index not in images}
        pending = [self.read_texts(list(texts.values())), *(self.read_picture(*image) for image in images.items())]
        tasks = [asyncio.ensure_future(task) for task in pending]
        try:
            (rows, num_tokens, num_truncated), *pixels = await asyncio.gather(*tasks)
        finally:  # after the first mistake the rest is not read
            for task in tasks:
                task.cancel()
        inputs = dict(zip(texts, rows)) | dict(zip(images, pixels))
        futures = [asyncio.get_running_loop().create_future() for _ in entries]
        for index, future in enumerate(futures):
            self.queue.put_nowait(Batch([future], inputs[index]))
        return Embedded(torch.stack(await asyncio.gather(*futures)), num_tokens, num_truncated)

    async def read_texts(self, texts: list[str]) -> tuple[list[dict[str, torch.Tensor]], int, int]:
        """The inputs of the model for each text, the number of their tokens, and how many texts were truncated."""
        if not texts:
            return [], 0, 0
        loop = asyncio.get_running_loop()
        tokens, truncated = await loop.run_in_executor(
            self.tokenizer_thread, tokenize_and_count, self.processor, texts, self.max_length
        )
        num_tokens = int(tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).sum())
        rows = [{key: values[row : row + 1] for key, values in tokens.items()} for row in range(len(texts))]
        return rows, num_tokens, sum(truncated)

    async def read_picture(self, index: int, entry: str) -> dict[str, torch.Tensor]:
        """The inputs of the model for a picture, which is fetched or decoded with few others at a time."""
        name, loop = f"input[{index}]", asyncio.get_running_loop()
        if DATA_URL.match(entry):
            return await loop.run_in_executor(self.readers, self.prepare, entry, name)
        if self.limits.allow_urls == "none":
            raise RequestError(
                f"`{name}` is an address, and this server fetches none (`--allow_urls`): send the picture as a data "
                "URL.",
                "input",
            )
        is_allowed = is_public if self.limits.allow_urls == "public" else lambda address: True
        async with self.fetches:
            try:
                content = await fetch(entry.strip(), self.limits.max_bytes, is_allowed)
            except FetchError as error:
                raise RequestError(f"`{name}` cannot be fetched: {error}.", "input") from error
            return await loop.run_in_executor(self.readers, self.prepare, content, name)

    def prepare(self, content: str | bytes, name: str) -> dict[str, torch.Tensor]:
        """The inputs of the model for a picture, from a data URL or the bytes of a file."""
        if isinstance(content, str):
            content = decode_base64(content, name)
        return prepare_images(self.processor, [decode_picture(content, name, self.limits.max_pixels)])

    async def run(self) -> None:
        """Computes what is waiting, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while not self.queue.empty() and len(waiting) < self.batch_size:
                waiting.append(self.queue.get_nowait())
            waiting = [batch for batch in waiting if not batch.entries[0].done()]  # else the request was given up
            if not waiting:
                continue
            computed = loop.run_in_executor(self.model_thread, self.compute, waiting)
            await asyncio.wait([computed])
            if (error := computed.exception()) is None:
                for future, embedding in computed.result():
                    if not future.done():
                        future.set_result(embedding)
                continue
            logger.error(f"A batch of {len(waiting)} texts and pictures failed.", exc_info=error)
            for future in (batch.entries[0] for batch in waiting):
                if not future.done():
                    future.set_exception(RequestError("The model failed: the log of the server says why.", status=500))

    def compute(self, waiting: list[Batch]) -> list[tuple[asyncio.Future, torch.Tensor]]:
        """The embedding (dim,) of each entry, which are batches of one, computed together."""
        images = [batch for batch in waiting if "pixel_values" in batch.inputs]
        texts = [batch for batch in waiting if "pixel_values" not in batch.inputs]
        batches = list(make_batches(texts, self.processor, StoreArguments.tokens_per_batch))
        if images:
            inputs = {key: torch.cat([batch.inputs[key] for batch in images]) for key in images[0].inputs}
            batches.append(Batch([batch.entries[0] for batch in images], inputs))
        return [pair for batch in batches for pair in zip(batch.entries, embed_batch(self.model, batch))]

    def close(self) -> None:
        """Ends the threads, when what they compute is done."""
        for threads in (self.readers, self.tokenizer_thread, self.model_thread):
            threads.shutdown(wait=False, cancel_futures=True)


def is_picture(entry: str) -> bool:
    """Whether an entry is a data URL or a web address: else it is a text."""
    return bool(DATA_URL.match(entry) or WEB_URL.fullmatch(entry.strip()))


def check_text(entry: str, index: int) -> str:
    """A text, if it is one. Raises a `RequestError` if it is empty or too long."""
    if not entry.strip():
        raise RequestError(f"`input[{index}]` is empty: send a text or a picture.", "input")
    if len(entry) > MAX_CHARACTERS:
        raise RequestError(f"`input[{index}]` has {len(entry)} characters, the most are {MAX_CHARACTERS}.", "input")
    return entry


def decode_base64(entry: str, name: str) -> bytes:
    """The file in a data URL."""
    header, _, data = entry.partition(",")
    if not header.lower().endswith(";base64"):
        raise RequestError(f"`{name}` is a data URL without base64: `data:image/jpeg;base64,...`.", "input")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"`{name}` is no base64: {error}.", "input") from error


def decode_picture(data: bytes, name: str, max_pixels: int) -> PIL.Image.Image:
    """An upright RGB picture from a file. Raises a `RequestError` if there is none, or it is too large."""
    try:
        with open_image(data, SAFE_FORMATS) as image:
            width, height = image.size
        if width * height <= max_pixels:
            return read_image({"bytes": data}, formats=SAFE_FORMATS)
    except IMAGE_ERRORS as error:
        raise RequestError(f"`{name}` is no picture that can be read: {str(error).rstrip('.')}.", "input") from error
    raise RequestError(f"`{name}` has {width} x {height} pixels, the most are {max_pixels}.", "input", status=413)
