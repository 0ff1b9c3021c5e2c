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
from ..utils.sub_captions import mark_query
from .arguments import ServingArguments


logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"(https?|ftp|file):/\S+", re.IGNORECASE)
MAX_CHARACTERS = 100_000  # of a text that are tokenized; models read a few thousand at most
MAX_PIXELS = 50_000_000  # of an image
MAX_WAITING = 1024  # texts and images of all requests at a time


class RequestError(HTTPException):
    """What is wrong with a request, and the field of OpenAI's API (`param`) that it is in."""

    def __init__(self, message: str, param: str | None = "input", status: int = 400):
        super().__init__(status, message, {"Retry-After": "1"} if status == 503 else None)
        self.param = param


class Embedded(NamedTuple):
    """The answer to a request."""

    embeds: torch.Tensor  # (entries, dim): normalised, in float32
    num_tokens: int  # that the model read of the texts
    num_truncated: int  # texts that are longer than its limit


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
        self.queue, self.num_waiting, self.max_waiting = asyncio.Queue(), 0, max(MAX_WAITING, limits.max_batch_size)
        self.readers = ThreadPoolExecutor(max_workers=os.cpu_count())  # no more images are decoded at once
        self.tokenizer_thread = ThreadPoolExecutor(max_workers=1)  # a fast tokenizer serves one thread at a time
        self.model_thread = ThreadPoolExecutor(max_workers=1)

    async def embed(self, entries: list[str], splitter: str | None = None) -> Embedded:
        """
        Embeds texts, with a `splitter` as queries: see [`mark_query`], and images. Raises a `RequestError` if one
        cannot be read, or too many are waiting.
        """
        if self.num_waiting + len(entries) > self.max_waiting:
            message = f"The server is busy: it has {self.num_waiting} texts and images. Try again."
            raise RequestError(message, None, 503)
        self.num_waiting += len(entries)
        try:
            loop = asyncio.get_running_loop()
            images = {place: entry.strip() for place, entry in enumerate(entries) if is_image(entry, place)}
            texts = [entry[:MAX_CHARACTERS] for place, entry in enumerate(entries) if place not in images]
            reading = [loop.run_in_executor(self.readers, self.read_image, *image) for image in images.items()]
            tokenizing = loop.run_in_executor(self.tokenizer_thread, self.read_texts, texts, splitter)
            *pixels, (rows, num_tokens, num_truncated) = await asyncio.gather(*reading, tokenizing)
            inputs, rows = dict(zip(images, pixels)), iter(rows)
            futures = [loop.create_future() for _ in entries]
            for place, future in enumerate(futures):
                if place in inputs:
                    self.queue.put_nowait(Batch([future], inputs[place], "image"))
                else:
                    self.queue.put_nowait(Batch([future], next(rows), "text"))
            return Embedded(torch.stack(await asyncio.gather(*futures)), num_tokens, num_truncated)
        finally:
            self.num_waiting -= len(entries)

    def read_texts(self, texts: list[str], splitter: str | None) -> tuple[list[dict[str, torch.Tensor]], int, int]:
        """The inputs of the model for each text, the number of their tokens, and how many texts were truncated."""
        if not texts:
            return [], 0, 0
        texts = texts if splitter is None else [mark_query(text, splitter) for text in texts]
        tokens, truncated = self.encoder.preprocessing.tokenize(texts)
        num_tokens = int(tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).sum())
        rows = [{name: tensor[row : row + 1] for name, tensor in tokens.items()} for row in range(len(texts))]
        return rows, num_tokens, sum(truncated)

    def read_image(self, place: int, entry: str) -> dict[str, torch.Tensor]:
        """The inputs of the model for the image of a data URL. Raises a `RequestError` if none can be read."""
        header, _, data = entry.partition(",")
        if not header.lower().endswith(";base64"):
            message = "begins with `data:`, so it must be an image: `data:image/jpeg;base64,...`."
            raise RequestError(f"`input[{place}]` {message}")
        try:
            content = base64.b64decode(data, validate=True)
            width, height = open_image(content, SAFE_FORMATS).size
            if width * height > MAX_PIXELS:
                message = f"`input[{place}]` has {width} x {height} pixels, the most are {MAX_PIXELS}."
                raise RequestError(message, status=413)
            return self.encoder.preprocessing.prepare_images([read_image({"bytes": content}, formats=SAFE_FORMATS)])
        except IMAGE_ERRORS as error:
            message = f"`input[{place}]` is no image that can be read: {str(error).rstrip('.')}."
            raise RequestError(message) from error

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
                    error = RequestError("The model failed: the log of the server says why.", None, 500)
                    future.set_exception(error)
                else:
                    future.set_result(embedding)

    def compute(self, waiting: list[Batch[asyncio.Future]]) -> list[tuple[asyncio.Future, torch.Tensor | None]]:
        """The embedding of each entry, None where the model fails: after an error they are computed one by one."""
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
        """Batches of one as few batches: of texts, and of the images whose inputs have the same shapes."""
        texts, images = [], defaultdict(list)
        for batch in waiting:
            if batch.modality == "text":
                texts.append(batch)
            else:
                shapes = tuple((name, tensor.shape[1:]) for name, tensor in batch.inputs.items())
                images[shapes].append(batch)
        batches = list(sort_texts(texts, self.encoder.preprocessing))
        for group in images.values():
            inputs = {name: torch.cat([batch.inputs[name] for batch in group]) for name in group[0].inputs}
            batches.append(Batch([batch.entries[0] for batch in group], inputs, "image"))
        return batches


def is_image(entry: str, place: int) -> bool:
    """Whether an entry is an image, and not a text. Raises a `RequestError` if it is empty or an address."""
    if ADDRESS.fullmatch(entry.strip()):
        raise RequestError(f"`input[{place}]` is an address, and this server fetches none: send a data URL.")
    if not entry.strip():
        raise RequestError(f"`input[{place}]` is empty: send a text or an image.")
    return entry.lstrip()[:5].lower() == "data:"
