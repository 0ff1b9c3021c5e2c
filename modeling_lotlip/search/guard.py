# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What browsers and visitors may send to a server of this package, as ASGI middleware."""

import json
import os
import re
from asyncio import Lock, sleep
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..utils.addresses import is_loopback


MAX_UPLOAD = 64 * 2**20  # bytes of an uploaded image
MAX_UPLOADS = 2**30  # bytes of all of them together
MAX_REQUEST = 2**20  # bytes of any other request
SECONDS_AFTER_WRONG_LOGIN = 1.0
# A route of Gradio that answers with a file, or with what it fetches from a URL in the same part of the path
FILE_ROUTE = re.compile(r"/(?:file[=/]|proxy=)(?P<path>.*)", re.DOTALL)


def refuse(status: int, message: str) -> JSONResponse:
    """Makes an error in the form of Gradio's."""
    return JSONResponse({"detail": message}, status)


class SameOrigin:
    """
    Answers no other web site: what its scripts, forms and images ask for is refused, links are not. A server that only
    this machine reaches (`is_local`) has no other name than a loopback one (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, is_local: bool, refuse: Callable[[int, str], ASGIApp] = refuse):
        self.app = app
        self.is_local = is_local
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI has it."""
        app = self.app
        if scope["type"] != "lifespan":
            app = self.choose_app(Headers(scope=scope))
        await app(scope, receive, send)

    def choose_app(self, headers: Headers) -> ASGIApp:
        """Returns what answers a request with these headers: the server, or an error."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        try:
            host_name = urlsplit(f"//{host}").hostname or ""
            origin_host = None if origin is None else urlsplit(origin).netloc
        except ValueError:
            return self.refuse(400, f"The headers `Host: {host}` and `Origin: {origin}` must be addresses.")
        if self.is_local and not is_loopback(host_name):
            return self.refuse(403, f"This server answers at 127.0.0.1 and localhost, not at {host!r}.")
        is_link = origin is None and headers.get("sec-fetch-mode") == "navigate"
        # same-site: from another port, say
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if origin_host is not None and origin_host.lower() != host.lower():
            is_foreign = True
        if is_foreign and not is_link:
            return self.refuse(403, "This server answers no other web site.")
        return self.app


class Guard:
    """
    Stands before Gradio's server: requests, and uploads in sum, have a size, no file is read but uploaded ones,
    nothing is fetched, wrong logins take time, and the cookie of a user stays on the page's site.
    """

    def __init__(self, app: ASGIApp, uploads: Path):
        self.app = app
        self.uploads = Path(os.path.realpath(uploads))
        self.num_uploading = 0  # bytes
        self.logins = WeakValueDictionary()  # a lock for each address that logs in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI has it."""
        app = self.app
        if scope["type"] == "http":
            app = self.choose_app(scope)
        await app(scope, receive, send)

    def choose_app(self, scope: Scope) -> ASGIApp:
        """Returns what answers a request: Gradio's server, a method that passes it on with care, or an error."""
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers:
            return refuse(411, "Send the length of the request.")
        num_bytes = int(headers.get("content-length", "0"))
        route = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        file_route = FILE_ROUTE.search(route)
        if file_route is not None and not is_uploaded(file_route["path"], self.uploads):
            return refuse(403, "No file is read but uploaded ones, and nothing is fetched.")
        if route == "/gradio_api/upload":
            return partial(self.upload, num_bytes)
        if num_bytes > MAX_REQUEST:
            return refuse(413, f"The request has more than {MAX_REQUEST} bytes.")
        if route == "/login":
            return self.log_in
        if num_bytes > 0:
            return self.check_files
        return self.app

    async def check_files(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Passes a request on if its JSON names no file but uploaded ones. Gradio itself looks only after it has copied
        the file, or fetched it where its path is a URL.
        """
        body = b""
        is_complete = False
        while not is_complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            is_complete = not message.get("more_body", False)

        is_passed_on = False

        async def receive_again() -> Message:
            nonlocal is_passed_on
            if is_passed_on:
                return await receive()
            is_passed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        app = self.app
        try:
            paths = find_paths(body)
        except (ValueError, RecursionError):  # of arrays in arrays
            app = refuse(400, "The request is no JSON.")
        else:
            if not all(is_uploaded(path, self.uploads) for path in paths):
                app = refuse(403, "Upload the image: no other file is read, and nothing is fetched.")
        await app(scope, receive_again, send)

    async def upload(self, num_bytes: int, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Passes an image on, which goes to the disk as it comes; the oldest ones make room for it.

        Args:
            num_bytes (`int`):
                The length of the request.
            scope (`Scope`):
                The request, as ASGI has it.
            receive (`Receive`):
                Reads the body of the request.
            send (`Send`):
                Writes the answer.
        """
        app = self.app
        self.num_uploading += num_bytes
        try:
            if self.num_uploading > MAX_UPLOADS:
                app = refuse(503, "Too many images are being uploaded. Try again.")
            else:
                delete_oldest(self.uploads, MAX_UPLOADS - self.num_uploading)
            await app(scope, receive, send)
        finally:
            self.num_uploading -= num_bytes

    async def log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a login on, one of an address at a time, with a second's rest after a wrong one."""
        is_wrong = False

        async def send_login(message: Message) -> None:
            nonlocal is_wrong
            if message["type"] == "http.response.start":
                is_wrong = message["status"] >= 400
                headers = message["headers"]
                # Gradio lets requests of other sites carry the cookie
                lax = [(name, value.replace(b"SameSite=none", b"SameSite=lax")) for name, value in headers]
                message = {**message, "headers": lax}
            await send(message)

        address = (scope.get("client") or ("",))[0]
        async with self.logins.setdefault(address, Lock()):
            await self.app(scope, receive, send_login)
            if is_wrong:
                await sleep(SECONDS_AFTER_WRONG_LOGIN)


def find_paths(body: bytes) -> list[object]:
    """Returns every value that is called `path` in a JSON text. Raises a `ValueError` if it is none."""
    paths = []

    def note_paths(pairs: list[tuple[str, object]]) -> None:
        # all pairs, also where a name occurs twice, of which parsers choose as they like
        for name, value in pairs:
            if name == "path":
                paths.append(value)

    json.loads(body, object_pairs_hook=note_paths, parse_constant=refuse_constant)
    return paths


def refuse_constant(name: str) -> None:
    """Raises a `ValueError` for NaN and infinity, which Python reads and JSON has not: Gradio cannot answer them."""
    raise ValueError(f"{name} is no JSON")


def is_uploaded(path: object, uploads: Path) -> bool:
    """Returns whether the path of a file leads to a folder of uploads, or below it."""
    if not isinstance(path, str):
        return False
    # by its letters first: on Windows a mere look at `//host/name` calls that host
    absolute = Path(os.path.abspath(path))
    try:
        return absolute.is_relative_to(uploads) and absolute.resolve().is_relative_to(uploads)
    except (OSError, ValueError):  # a name that is too long, or holds a null
        return False


def delete_oldest(folder: Path, max_bytes: int) -> None:
    """Deletes the oldest files of a folder until at most a number of bytes is left."""
    files = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Gradio deletes files too
            if path.is_file():
                files.append((path.stat(), path))
    num_bytes = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if num_bytes <= max_bytes:
            return
        with suppress(PermissionError):  # on Windows: it is being read
            path.unlink(missing_ok=True)
            num_bytes -= status.st_size
