# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts and images of many requests to embeddings, in batches that one thread computes."""

import asyncio
import base64
import binascii
import logging
import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import PIL.Image
import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_ERRORS, SAFE_FORMATS, open_image, read_image
from ..embedding.arguments import StoreArguments
from ..embedding.batches import Batch, embed_batch, embed_texts, make_batches, tokenize, tokenize_and_count
from ..embedding.families import in_trained_case
from ..embedding.features import prepare_images
from .arguments import ServingArguments


logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"(https?|ftp|file):/\S+", re.IGNORECASE)
MAX_CHARACTERS = 100_000  # of a text; models read a few thousand at most


class RequestError(Exception):
    """What is wrong with a request, and of OpenAI's API the field (`param`), the status of HTTP and the `code`."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code
        self.headers = {"Retry-After": "1"} if status == 503 else None


class Embedded(NamedTuple):
    """
    The answer to a request: normalised embeddings (entries, dim) in float32, how many tokens the model read of the
    texts, and how many texts were longer than its limit.
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
            The most texts and images that are computed at once.
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
        self.queue, self.num_waiting = asyncio.Queue(), 0
        self.readers = ThreadPoolExecutor(max_workers=os.cpu_count())  # no more images are decoded at once
        self.tokenizer_thread = ThreadPoolExecutor(max_workers=1)  # a fast tokenizer serves one thread at a time
        self.model_thread = ThreadPoolExecutor(max_workers=1)

    async def embed(self, entries: list[str]) -> Embedded:
        """
        Embeds texts and images.

        Raises:
            `RequestError`: if an entry is no text and no image that can be read, the model fails at one, or too many
                are waiting.
        """
        if self.num_waiting + len(entries) > self.limits.max_waiting:
            message = f"The server is busy: it has {self.num_waiting} texts and images. Try again."
            raise RequestError(message, status=503)
        self.num_waiting += len(entries)
        try:
            return await self.embed_entries(entries)
        finally:
            self.num_waiting -= len(entries)

    async def embed_entries(self, entries: list[str]) -> Embedded:
        loop = asyncio.get_running_loop()
        images = {place: entry.strip() for place, entry in enumerate(entries) if is_image(entry, place)}
        texts = {place: entry for place, entry in enumerate(entries) if place not in images}
        reading = [loop.run_in_executor(self.tokenizer_thread, self.read_texts, texts)]
        reading += [loop.run_in_executor(self.readers, self.read_image, *image) for image in images.items()]
        try:
            (rows, num_tokens, num_truncated), *pixels = await asyncio.gather(*reading)
        finally:  # after the first error the rest is not read
            for future in reading:
                future.cancel()
        inputs = dict(zip(texts, rows)) | dict(zip(images, pixels))
        futures = [loop.create_future() for _ in entries]
        for place, future in enumerate(futures):
            self.queue.put_nowait(Batch([future], inputs[place]))
        return Embedded(torch.stack(await asyncio.gather(*futures)), num_tokens, num_truncated)

    def read_texts(self, texts: dict[int, str]) -> tuple[list[dict[str, torch.Tensor]], int, int]:
        """The inputs of the model for each text, the number of their tokens, and how many texts were truncated."""
        if not texts:
            return [], 0, 0
        for place, text in texts.items():  # control codes, say, that the tokenizer deletes
            plain = ["a"] if re.search(r"\w", text) else in_trained_case(self.processor, [text])
            if not self.processor.tokenizer(plain, add_special_tokens=False)["input_ids"][0]:
                raise RequestError(f"`input[{place}]` has nothing that the model reads: send another text.", "input")
        tokens, truncated = tokenize_and_count(self.processor, list(texts.values()), self.max_length, verbose=False)
        num_tokens = int(tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).sum())
        rows = [{name: tensor[row : row + 1] for name, tensor in tokens.items()} for row in range(len(texts))]
        return rows, num_tokens, sum(truncated)

    def read_image(self, place: int, entry: str) -> dict[str, torch.Tensor]:
        """The inputs of the model for an image."""
        return prepare_images(self.processor, [decode_image(entry, f"input[{place}]", self.limits.max_pixels)])

    async def run(self) -> None:
        """Computes what is waiting, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while not self.queue.empty() and len(waiting) < self.batch_size:
                waiting.append(self.queue.get_nowait())
            for future, embedding in await loop.run_in_executor(self.model_thread, self.compute, waiting):
                if future.done():  # an entry beside it has failed
                    continue
                if embedding is None:
                    error = RequestError("The model failed: the log of the server says why.", status=500)
                    future.set_exception(error)
                else:
                    future.set_result(embedding)

    def compute(self, waiting: list[Batch]) -> list[tuple[asyncio.Future, torch.Tensor | None]]:
        """
        The embedding (dim,) of each entry, which are batches of one, or None where the model fails. After an error the
        entries are computed one by one: none fails another.
        """
        try:
            return [
                pair for batch in self.merge(waiting) for pair in zip(batch.entries, embed_batch(self.model, batch))
            ]
        except Exception as error:
            if len(waiting) > 1:
                return [self.compute([batch])[0] for batch in waiting]
            logger.error("The model failed at a text or an image.", exc_info=error)
            return [(waiting[0].entries[0], None)]

    def merge(self, waiting: list[Batch]) -> list[Batch]:
        """Batches of one as few batches: of texts, and of the images whose inputs have the same shapes."""
        texts, images = [], defaultdict(list)
        for batch in waiting:
            shapes = tuple((name, tensor.shape[1:]) for name, tensor in batch.inputs.items())
            (images[shapes] if "pixel_values" in batch.inputs else texts).append(batch)
        batches = list(make_batches(texts, self.processor, StoreArguments.tokens_per_batch))
        for group in images.values():
            inputs = {name: torch.cat([batch.inputs[name] for batch in group]) for name in group[0].inputs}
            batches.append(Batch([batch.entries[0] for batch in group], inputs))
        return batches

    def close(self) -> None:
        """Ends the threads, when what they compute is done."""
        for threads in (self.readers, self.tokenizer_thread, self.model_thread):
            threads.shutdown(wait=False, cancel_futures=True)


def is_image(entry: str, place: int) -> bool:
    """
    Whether an entry is an image, and not a text. Raises a `RequestError` if it is an address, or a text that is empty
    or too long.
    """
    if ADDRESS.fullmatch(entry.strip()):
        raise RequestError(
            f"`input[{place}]` is an address, and this server fetches none: send the image as a data URL.", "input"
        )
    if entry.lstrip()[:5].lower() == "data:":
        return True
    if not entry.strip():
        raise RequestError(f"`input[{place}]` is empty: send a text or an image.", "input")
    if len(entry) > MAX_CHARACTERS:
        raise RequestError(f"`input[{place}]` has {len(entry)} characters, the most are {MAX_CHARACTERS}.", "input")
    return False


def decode_image(entry: str, name: str, max_pixels: int) -> PIL.Image.Image:
    """An upright RGB image from a data URL. Raises a `RequestError` if there is none, or it is too large."""
    header, _, data = entry.partition(",")
    if not header.lower().endswith(";base64"):
        raise RequestError(
            f"`{name}` begins with `data:`, so it must be an image: `data:image/jpeg;base64,...`.", "input"
        )
    try:
        content = base64.b64decode(data, validate=True)
        with open_image(content, SAFE_FORMATS) as image:
            width, height = image.size
        if width * height <= max_pixels:
            return read_image({"bytes": content}, formats=SAFE_FORMATS)
    except binascii.Error as error:
        raise RequestError(f"`{name}` is no base64: {error}.", "input") from error
    except IMAGE_ERRORS as error:
        raise RequestError(f"`{name}` is no image that can be read: {str(error).rstrip('.')}.", "input") from error
    raise RequestError(f"`{name}` has {width} x {height} pixels, the most are {max_pixels}.", "input", status=413)
