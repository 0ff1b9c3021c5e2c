# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts and pictures of many requests to embeddings, in batches that one thread computes."""

import asyncio
import base64
import binascii
import io
import logging
import os
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from threading import Lock
from typing import NamedTuple

import PIL.Image
import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_ERRORS, UnreadableImageError, read_image
from ..embedding.arguments import StoreArguments
from ..embedding.batches import Batch, embed_batch, make_batches, tokenize_and_count
from ..embedding.features import prepare_images
from .arguments import ServingArguments


logger = logging.getLogger(__name__)

DATA_URL = re.compile(r"data:image/[^,]*,", re.IGNORECASE)
WEB_URL = re.compile(r"https?://\S+", re.IGNORECASE)
# Pillow starts other programs for some of the rest
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_CHARACTERS = 100_000  # of a text; models read a few thousand at most
FETCH_TIMEOUT = 10  # seconds without an answer


class RequestError(Exception):
    """What is wrong with a request: a message, the field it is about, and the HTTP status."""

    def __init__(self, message: str, param: str | None = None, status: int = 400):
        super().__init__(message)
        self.param, self.status = param, status


class Prepared(NamedTuple):
    """Inputs of the model for each entry of a request, and of its texts the tokens and how many were truncated."""

    inputs: list[dict[str, torch.Tensor]]
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
        self.queue = asyncio.Queue()
        self.tokenizer_lock = Lock()
        self.readers = ThreadPoolExecutor(max_workers=os.cpu_count())  # no more pictures are decoded at once
        self.model_thread = ThreadPoolExecutor(max_workers=1)

    async def embed(self, entries: list[str]) -> tuple[torch.Tensor, Prepared]:
        """
        Normalised embeddings (entries, dim) in float32 of texts and pictures, and what the model read.

        Raises:
            `RequestError`: if an entry is no text and no picture that can be read.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self.readers, self.prepare, entries)
        futures = [loop.create_future() for _ in entries]
        for future, inputs in zip(futures, prepared.inputs):
            self.queue.put_nowait(Batch([future], inputs))
        return torch.stack(await asyncio.gather(*futures)), prepared

    def prepare(self, entries: list[str]) -> Prepared:
        """Tokens of the texts and pixels of the pictures. Raises a `RequestError` that names the entry."""
        images, texts = {}, {}
        for index, entry in enumerate(entries):
            name = f"input[{index}]"
            data = read_picture_bytes(entry, name, self.limits)
            if data is not None:
                image = decode_picture(data, name, self.limits.max_pixels)
                images[index] = prepare_images(self.processor, [image])
            elif not entry.strip():
                raise RequestError(f"`{name}` is empty: send a text or a picture.", "input")
            elif len(entry) > MAX_CHARACTERS:
                raise RequestError(f"`{name}` has {len(entry)} characters, the most are {MAX_CHARACTERS}.", "input")
            else:
                texts[index] = entry
        num_tokens, truncated, inputs = 0, [], images
        if texts:
            with self.tokenizer_lock:  # a fast tokenizer serves one thread at a time
                tokens, truncated = tokenize_and_count(self.processor, list(texts.values()), self.max_length)
            num_tokens = int(tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).sum())
            for row, index in enumerate(texts):
                inputs[index] = {key: values[row : row + 1] for key, values in tokens.items()}
        return Prepared([inputs[index] for index in range(len(entries))], num_tokens, sum(truncated))

    async def run(self) -> None:
        """Computes what is waiting, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while not self.queue.empty() and len(waiting) < self.batch_size:
                waiting.append(self.queue.get_nowait())
            computed = loop.run_in_executor(self.model_thread, self.compute, waiting)
            await asyncio.wait([computed])
            if (error := computed.exception()) is None:
                for future, embedding in computed.result():
                    if not future.done():  # else the request was given up
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


def read_picture_bytes(entry: str, name: str, limits: ServingArguments) -> bytes | None:
    """The file of a picture, given as a data URL or an address; None if the entry is a text."""
    if DATA_URL.match(entry):
        header, _, data = entry.partition(",")
        if not header.lower().endswith(";base64"):
            raise RequestError(f"`{name}` is a data URL without base64: `data:image/jpeg;base64,...`.", "input")
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"`{name}` is no base64: {error}.", "input") from error
    if not WEB_URL.fullmatch(entry.strip()):
        return None
    if not limits.allow_urls:
        raise RequestError(
            f"`{name}` is an address, and this server fetches none (`--allow_urls`): send the picture as a data URL.",
            "input",
        )
    try:
        with urllib.request.urlopen(entry.strip(), timeout=FETCH_TIMEOUT) as response:
            data = response.read(limits.max_bytes + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise RequestError(f"`{name}` cannot be fetched: {error}.", "input") from error
    if len(data) > limits.max_bytes:
        raise RequestError(f"`{name}` has more than {limits.max_bytes} bytes.", "input", status=413)
    return data


def decode_picture(data: bytes, name: str, max_pixels: int) -> PIL.Image.Image:
    """An upright RGB picture from a file. Raises a `RequestError` if there is none, or it is too large."""
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
        if width * height <= max_pixels:
            return read_image({"bytes": data})
    except PIL.UnidentifiedImageError as error:
        raise RequestError(f"`{name}` is no picture of {', '.join(FORMATS)}.", "input") from error
    except (UnreadableImageError, *IMAGE_ERRORS) as error:
        raise RequestError(f"`{name}` is a picture that cannot be read: {error}", "input") from error
    raise RequestError(f"`{name}` has {width} x {height} pixels, the most are {max_pixels}.", "input", status=413)
