# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captioners on an OpenAI-compatible server (vLLM, TGI, SGLang, ...)."""

import asyncio
import base64
import io
import json
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from email.utils import mktime_tz, parsedate_tz

import httpx
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from ..data.images import UnreadableImageError, open_image
from ..encoder.batches import prefetch
from ..utils.terminal import without_stop
from .answer import Answer
from .arguments import CaptionerArguments
from .image_files import ImageFile


logger = logging.getLogger(__name__)

API_KEY_VARIABLE = "OPENAI_API_KEY"
SENT_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png"}
ORIENTATION = 0x0112  # of EXIF
JPEG_QUALITY = 95
# After so many failures in a row, and no answer between them, the server is taken to be gone.
MAX_FAILURES_IN_A_ROW = 100
SECONDS_BETWEEN_LOOKS = 0.5  # for a signal
SECONDS_PER_BATCH = 1.0  # of answers, which are written to the disk together
# No key, no credit, no right, no such model or URL: the next request would be refused, too.
REFUSALS = (401, 402, 403, 404)
# Failures that may pass: a timeout, a conflict, too many requests; and every 5xx
PASSING = (408, 409, 429)
# Seconds before a retry where the server does not ask for others: the first time, and at most. They double each time.
FIRST_WAIT = 0.5
MAX_WAIT = 8.0
# A server that asks for a longer pause, such as one whose quota for the day is used up, ends the run.
MAX_REQUESTED_WAIT = 3600.0
# The column of the parquet files has 32 bits; a larger count of a caption's tokens is a mistake of the server.
MAX_NUM_TOKENS = 2**31 - 1
MIN_ANNOUNCED_WAIT = 10.0  # seconds in which a user would wonder what the run does


class HttpClient(DefaultAsyncHttpxClient):
    """Bounds a whole answer by `timeout`, not each read of a part of it."""

    async def send(self, request: httpx.Request, **options: object) -> httpx.Response:
        """Sends a request; raises an `httpx.ReadTimeout` if the whole answer does not come in time."""
        seconds = request.extensions["timeout"]["read"]
        try:
            return await asyncio.wait_for(super().send(request, **options), seconds)
        except asyncio.TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer in {seconds:g} seconds", request=request) from error


def make_data_url(file: ImageFile, max_size: int | None) -> str:
    """
    Makes a data URL of an image: of the file as it is if every server shows it upright, else of an upright JPEG, with
    its longer side at most `max_size`.

    Raises:
        `UnreadableImageError`: if the file is no image.
    """
    image = file.decode()
    if max_size is None:
        max_size = max(image.size)
    with open_image(file.content) as original:
        mime_type = SENT_FORMATS.get(original.format)
        is_upright = original.getexif().get(ORIENTATION, 1) == 1
        # a PNG of these modes may name a color that is transparent
        is_opaque = original.mode in ("L", "RGB") and "transparency" not in original.info
    if mime_type is not None and is_upright and is_opaque and max(image.size) <= max_size:
        content = file.content
    else:
        image.thumbnail((max_size, max_size))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        mime_type = "image/jpeg"
        content = buffer.getvalue()
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


def list_request_options(arguments: CaptionerArguments) -> dict:
    """Lists the fields of a request that set how to generate."""
    options = {
        "max_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature or 0.0,
        "seed": arguments.seed,
    }
    if arguments.top_p is not None:
        options["top_p"] = arguments.top_p
    if arguments.repetition_penalty is not None:  # vLLM and SGLang know it, OpenAI's interface does not
        options["extra_body"] = {"repetition_penalty": arguments.repetition_penalty}
    return options


def may_pass(error: OpenAIError) -> bool:
    """Says whether a failed request may succeed if it is sent again. A server can say so itself."""
    if isinstance(error, APIConnectionError):  # or a timeout
        return True
    if not isinstance(error, APIStatusError):
        return False
    wish = error.response.headers.get("x-should-retry")
    if wish in ("true", "false"):
        return wish == "true"
    return error.status_code in PASSING or error.status_code >= 500


def read_retry_after(headers: httpx.Headers) -> float | None:
    """
    Reads how many seconds a server asks to wait.

    Args:
        headers (`httpx.Headers`):
            Of its answer. `Retry-After` is a number of seconds or a date.

    Returns:
        `float` or `None`: a finite number above 0; None if the server asks for nothing, or for nothing that can be
        read.
    """
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers.get("retry-after", "nan"))
    except ValueError:
        date = parsedate_tz(headers.get("retry-after", ""))
        if date is None:
            return None
        seconds = mktime_tz(date) - time.time()
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return seconds


async def wait(seconds: float) -> None:
    """Waits before a request is sent again, while other requests go on."""
    await asyncio.sleep(seconds)


class EndpointCaptioner:
    """
    Captions images by a model on a server.

    A failure that may pass (timeouts, broken connections, 408, 409, 429 and 5xx) is retried, up to `max_retries`
    times, after growing waits or after that for which `Retry-After` asks. The waits are not left to the client of
    openai, which does not retry at all where `Retry-After` is above two minutes.

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
        self.announced_until = -math.inf  # the end of the last wait that was announced, in monotonic seconds

    def answer(
        self,
        files: Iterator[ImageFile],
        is_stopped: Callable[[], bool],
    ) -> Iterator[list[tuple[ImageFile, Answer]]]:
        """
        Captions images, each with its prompt, `concurrency` at a time, in the order of the answers: a list of them
        every second. When `is_stopped` the requests that have no answer are given up.

        Raises:
            `ValueError`: if the server would refuse every request, asks for a pause of more than an hour, or has
                failed too often.
        """
        loop = asyncio.new_event_loop()
        client = AsyncOpenAI(
            base_url=self.arguments.endpoint,
            api_key=os.environ.get(API_KEY_VARIABLE) or "none",  # servers of one's own ask for none
            timeout=self.arguments.timeout,
            max_retries=0,  # see `request`
            http_client=HttpClient(),
        )
        pending = set()
        batch = []
        begun_at = time.monotonic()
        files = prefetch(files, depth=self.arguments.concurrency)
        failure = None
        try:
            while not is_stopped():
                while failure is None and len(pending) < self.arguments.concurrency:
                    try:
                        file = next(files, None)
                    except (OSError, ValueError) as error:  # raised below, after the answers of the files before
                        failure = error
                        break
                    if file is None:
                        break
                    pending.add(loop.create_task(self.ask(client, file)))
                if not pending:
                    break
                done, pending = loop.run_until_complete(
                    asyncio.wait(pending, timeout=SECONDS_BETWEEN_LOOKS, return_when=asyncio.FIRST_COMPLETED)
                )
                failed = [task for task in done if task.exception() is not None]
                batch += [task.result() for task in done if task not in failed]
                if failed or time.monotonic() - begun_at >= SECONDS_PER_BATCH:
                    yield batch
                    batch = []
                    begun_at = time.monotonic()
                for task in failed:  # an error ends the run
                    task.result()
            yield batch
            if failure is not None:
                raise failure
        finally:
            loop.run_until_complete(give_up(client, pending))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def ask(self, client: AsyncOpenAI, file: ImageFile) -> tuple[ImageFile, Answer]:
        """Asks for the caption of an image; see [`answer`] for the errors."""
        try:
            url = await asyncio.to_thread(make_data_url, file, self.arguments.max_image_size)
        except UnreadableImageError as error:
            return file, Answer(None, error=str(error))
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": file.prompt}]
        try:
            answer = read_completion(await self.request(client, content))
        except APIStatusError as error:
            if error.status_code in REFUSALS:
                raise ValueError(
                    f"`--endpoint {self.arguments.endpoint}` refuses `--captioner {self.name}`: "
                    f"{without_stop(error)}. The URL usually ends in /v1; the name is that of the model at the "
                    f"server; its key is read from {API_KEY_VARIABLE}."
                ) from error
            answer = Answer(None, error=describe_failed_request(error))
        except (OpenAIError, UnreadableAnswerError) as error:
            answer = Answer(None, error=describe_failed_request(error))
        self.count_failure(answer)
        return file, answer

    async def request(self, client: AsyncOpenAI, content: list[dict]) -> object:
        """Sends a request, again while it fails with what may pass; see [`answer`] for the errors."""
        for num_retries in range(self.arguments.max_retries):
            try:
                return await self.send(client, content)
            except OpenAIError as error:
                if not may_pass(error):
                    raise
                seconds = self.choose_wait(error, num_retries)
            await wait(seconds)
        return await self.send(client, content)

    async def send(self, client: AsyncOpenAI, content: list[dict]) -> object:
        """Sends a request once; an answer that is not even JSON is an [`UnreadableAnswerError`]."""
        messages = [{"role": "user", "content": content}]
        try:
            return await client.chat.completions.create(model=self.name, messages=messages, **self.request_options)
        except json.JSONDecodeError as error:
            raise UnreadableAnswerError(f"the answer is no JSON: {error}") from error

    def choose_wait(self, error: OpenAIError, num_retries: int) -> float:
        """
        Chooses the seconds to wait before a request is sent again.

        Raises:
            `ValueError`: if the server asks for more than an hour.
        """
        requested = None
        if isinstance(error, APIStatusError):
            requested = read_retry_after(error.response.headers)
        if requested is None:
            # requests that failed together do not come together again
            return min(FIRST_WAIT * 2**num_retries, MAX_WAIT) * random.uniform(0.75, 1)
        if requested > MAX_REQUESTED_WAIT:
            raise ValueError(
                f"`--endpoint {self.arguments.endpoint}` asks for a pause of {requested:.0f} seconds (Retry-After): "
                f"{without_stop(error)}. What is captioned is kept; start again after it with the same command."
            ) from error
        now = time.monotonic()
        # many requests wait at a time: a line for the first of them
        if requested >= MIN_ANNOUNCED_WAIT and now >= self.announced_until:
            self.announced_until = now + requested
            logger.warning(
                f"`--endpoint {self.arguments.endpoint}` asks for a pause of {requested:.0f} seconds (Retry-After). "
                "The run waits, and goes on after it."
            )
        return requested

    def count_failure(self, answer: Answer) -> None:
        """Counts failures in a row; raises a `ValueError` if they are `MAX_FAILURES_IN_A_ROW`."""
        if answer.error is None:
            self.num_failures_in_a_row = 0
            return
        self.num_failures_in_a_row += 1
        if self.num_failures_in_a_row == MAX_FAILURES_IN_A_ROW:
            raise ValueError(
                f"`--endpoint {self.arguments.endpoint}` has failed {MAX_FAILURES_IN_A_ROW} times in a row, last: "
                f"{without_stop(answer.error)}. Start again with `--retry_failed` when it answers."
            )


def describe_failed_request(error: Exception) -> str:
    """Describes in one line why there is no answer, with the cause that the client hides."""
    text = f"the server failed: {error}"
    if isinstance(error, OpenAIError) and error.__cause__ is not None:
        text = f"the server failed: {error} ({error.__cause__})"
    return " ".join(text.split())


async def give_up(client: AsyncOpenAI, pending: set[asyncio.Task]) -> None:
    """Gives up requests, and closes the connections."""
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await client.close()


class UnreadableAnswerError(ValueError):
    """Raised where a server's answer holds no caption."""


def join_texts(content: list) -> str | None:
    """Joins the texts of an answer in parts, which may have others, such as thoughts; None if no part is a text."""
    texts = []
    for part in content:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(texts) if texts else None


def read_completion(completion: object) -> Answer:
    """
    Reads the caption in a server's answer, and the count of its tokens if the answer has it.

    Raises:
        `UnreadableAnswerError`: if there is none: a server may answer anything.
    """
    try:
        choice = completion.choices[0]
        content = choice.message.content
    except (AttributeError, IndexError, TypeError) as error:
        raise UnreadableAnswerError(f"the answer is no chat completion: {completion!r:.200}") from error
    finish_reason = getattr(choice, "finish_reason", None)
    if finish_reason == "content_filter":
        raise UnreadableAnswerError("the answer was filtered (finish_reason content_filter)")
    text = join_texts(content) if isinstance(content, list) else content
    if not isinstance(text, str):
        raise UnreadableAnswerError(f"the answer has no text (finish_reason {finish_reason}): {content!r:.200}")
    usage = getattr(completion, "usage", None)
    num_tokens = getattr(usage, "completion_tokens", None)
    if not isinstance(num_tokens, int) or not 0 <= num_tokens <= MAX_NUM_TOKENS:
        num_tokens = None
    return Answer(text.strip(), num_tokens, is_cut_off=finish_reason == "length")
