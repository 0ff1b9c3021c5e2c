# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captioners behind an OpenAI-compatible server (vLLM, TGI, SGLang, ...)."""

import asyncio
import base64
import io
import os
from collections.abc import Callable, Iterator

import httpx
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError
from PIL import Image

from ..data.images import UnreadableImageError
from ..encoder.batches import prefetch
from .arguments import CaptionerArguments
from .captioner import Answer
from .image_files import ImageFile


API_KEY_VARIABLE = "OPENAI_API_KEY"
SENT_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png"}
ORIENTATION = 0x0112  # of EXIF
JPEG_QUALITY = 95
# After so many failures in a row, and no answer between them, the server is taken to be gone.
MAX_FAILURES_IN_A_ROW = 100
SECONDS_BETWEEN_LOOKS = 0.5  # for a signal
# No key, no credit, no right, no such model or URL: the next request would be refused, too.
REFUSALS = (401, 402, 403, 404)


class HttpClient(DefaultAsyncHttpxClient):
    """A client whose `timeout` bounds a whole answer, not each read of a part of it."""

    async def send(self, request: httpx.Request, **options: object) -> httpx.Response:
        seconds = request.extensions["timeout"]["read"]
        try:
            return await asyncio.wait_for(super().send(request, **options), seconds)
        except asyncio.TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer in {seconds:g} seconds", request=request) from error


def make_data_url(file: ImageFile, max_size: int | None) -> str:
    """
    An image as a data URL: the file as it is if every server shows it upright, as an upright JPEG otherwise, with its
    longer side at most `max_size`.

    Raises:
        `UnreadableImageError`: if the file is no image.
    """
    image, content = file.decode(), file.content
    with Image.open(io.BytesIO(content)) as original:
        kind = SENT_FORMATS.get(original.format)
        is_plain = original.mode in ("L", "RGB") and original.getexif().get(ORIENTATION, 1) == 1
    max_size = max_size or max(image.size)
    if kind is None or not is_plain or max(image.size) > max_size:
        image.thumbnail((max_size, max_size))
        kind, buffer = "image/jpeg", io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        content = buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def list_request_options(arguments: CaptionerArguments) -> dict:
    """The fields of a request that say how to generate."""
    options = {"max_tokens": arguments.max_new_tokens, "temperature": arguments.temperature or 0.0}
    options |= {"seed": arguments.seed} | ({} if arguments.top_p is None else {"top_p": arguments.top_p})
    if arguments.repetition_penalty is not None:  # vLLM and SGLang know it, OpenAI's interface does not
        options["extra_body"] = {"repetition_penalty": arguments.repetition_penalty}
    return options


class EndpointCaptioner:
    """
    A model behind a server. The client retries what may pass (timeouts, broken connections, 408, 409, 429 and 5xx)
    after growing waits, or after that which `Retry-After` asks for.

    Args:
        name (`str`):
            The name of the model at the server.
        arguments (`CaptionerArguments`):
            `endpoint`, the URL of the server, and how it is asked.
    """

    revision = None

    def __init__(self, name: str, arguments: CaptionerArguments):
        self.name = name
        self.arguments = arguments
        self.request_options = list_request_options(arguments)
        self.settings = {**self.request_options, "max_image_size": arguments.max_image_size}
        self.num_failures_in_a_row = 0

    def answer(self, files: Iterator[ImageFile], is_stopped: Callable[[], bool]) -> Iterator[tuple[ImageFile, Answer]]:
        """
        Captions images, each with its prompt, `concurrency` at a time, in the order of the answers. When `is_stopped`
        the requests that have no answer are given up.

        Raises:
            `ValueError`: if the server would refuse every request, or has failed too often.
        """
        loop = asyncio.new_event_loop()
        client = AsyncOpenAI(
            base_url=self.arguments.endpoint,
            api_key=os.environ.get(API_KEY_VARIABLE) or "none",  # servers of one's own ask for none
            timeout=self.arguments.timeout,
            max_retries=self.arguments.max_retries,
            http_client=HttpClient(),
        )
        pending = set()
        files = prefetch(files, depth=self.arguments.concurrency)
        try:
            while not is_stopped():
                while len(pending) < self.arguments.concurrency and (file := next(files, None)) is not None:
                    pending.add(loop.create_task(self.ask(client, file)))
                if not pending:
                    return
                done, pending = loop.run_until_complete(
                    asyncio.wait(pending, timeout=SECONDS_BETWEEN_LOOKS, return_when=asyncio.FIRST_COMPLETED)
                )
                # an error ends the run, but the other answers are there
                for task in sorted(done, key=lambda task: task.exception() is not None):
                    yield task.result()
        finally:
            loop.run_until_complete(give_up(client, pending))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def ask(self, client: AsyncOpenAI, file: ImageFile) -> tuple[ImageFile, Answer]:
        """The answer for an image; see [`answer`] for the errors."""
        try:
            url = await asyncio.to_thread(make_data_url, file, self.arguments.max_image_size)
        except UnreadableImageError as error:
            return file, Answer(None, error=str(error))
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": file.prompt}]
        try:
            completion = await client.chat.completions.create(
                model=self.name, messages=[{"role": "user", "content": content}], **self.request_options
            )
            answer = read_completion(completion)
        except (OpenAIError, ValueError) as error:
            if isinstance(error, APIStatusError) and error.status_code in REFUSALS:
                raise ValueError(
                    f"`--endpoint {self.arguments.endpoint}` refuses `--captioner {self.name}`: {error}. The URL "
                    "usually ends in /v1; the name is that of the model at the server; its key is read from "
                    f"{API_KEY_VARIABLE}."
                ) from error
            cause = f" ({error.__cause__})" if isinstance(error, OpenAIError) and error.__cause__ else ""
            answer = Answer(None, error=" ".join(f"the server failed: {error}{cause}".split()))
        self.num_failures_in_a_row = 0 if answer.error is None else self.num_failures_in_a_row + 1
        if self.num_failures_in_a_row == MAX_FAILURES_IN_A_ROW:
            raise ValueError(
                f"`--endpoint {self.arguments.endpoint}` has failed {MAX_FAILURES_IN_A_ROW} times in a row, last: "
                f"{answer.error}. Start again with `--retry_failed` when it answers."
            )
        return file, answer


async def give_up(client: AsyncOpenAI, pending: set[asyncio.Task]) -> None:
    """Gives up requests, and closes the connections."""
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await client.close()


def read_completion(completion: object) -> Answer:
    """
    The caption in a server's answer, and the number of its tokens if the answer has it.

    Raises:
        `ValueError`: if there is none: a server may answer anything.
    """
    try:
        choice = completion.choices[0]
        text, reason = choice.message.content, getattr(choice, "finish_reason", None)
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"the answer is no chat completion: {completion!r:.200}") from error
    if reason == "content_filter":
        raise ValueError("the answer was filtered (finish_reason content_filter)")
    if not isinstance(text, str):
        raise ValueError(f"the answer has no text (finish_reason {reason}): {text!r:.200}")
    number = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    return Answer(text.strip(), number if isinstance(number, int) else None, is_cut_off=reason == "length")
