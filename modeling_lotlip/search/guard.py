# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What browsers and visitors may send to a server of this package, as ASGI middleware."""

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


# The most bytes of an uploaded image, of all of them together, and of any other request
MAX_UPLOAD, MAX_UPLOADS, MAX_REQUEST = 64 * 2**20, 2**30, 2**20
# What a wrong login costs
SECONDS_AFTER_WRONG_LOGIN = 1.0


def refuse(status: int, message: str) -> JSONResponse:
    """An error in the form of Gradio's."""
    return JSONResponse({"detail": message}, status)


class SameOrigin:
    """
    Answers no other web site: what its scripts, forms and images ask for is refused, links are not. A server that only
    this machine reaches (`is_local`) has no other name than a loopback one (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, is_local: bool, refuse: Callable[[int, str], ASGIApp] = refuse):
        self.app, self.is_local, self.refuse = app, is_local, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] != "lifespan" and (problem := self.find_problem(Headers(scope=scope))):
            app = self.refuse(403, problem)
        await app(scope, receive, send)

    def find_problem(self, headers: Headers) -> str | None:
        """Why a request is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return f"This server answers at 127.0.0.1 and localhost, not at {host!r}."
        # same-site: from another port, say
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        is_link = origin is None and headers.get("sec-fetch-mode") == "navigate"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            is_foreign = True
        return "This server answers no other web site." if is_foreign and not is_link else None


class Guard:
    """
    Stands before Gradio's server: requests, and uploads in sum, have a size, wrong logins take time, and the cookie of
    a user stays on the page's site.
    """

    def __init__(self, app: ASGIApp, uploads: Path):
        self.app, self.uploads = app, uploads
        self.num_uploading = 0  # bytes
        self.logins = WeakValueDictionary()  # a lock for each address that logs in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, route = self.app, scope.get("path", "").rstrip("/")
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            num_bytes = int(headers.get("content-length", "0"))
            if "transfer-encoding" in headers:
                app = refuse(411, "Send the length of the request.")
            elif route.endswith("/upload"):
                app = partial(self.upload, num_bytes)
            elif num_bytes > MAX_REQUEST:
                app = refuse(413, f"The request has more than {MAX_REQUEST} bytes.")
            elif route.endswith("/login"):
                app = self.log_in
        await app(scope, receive, send)

    async def upload(self, num_bytes: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes an image on, which goes to the disk as it comes; the oldest ones make room for it."""
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
                lax = [(name, value.replace(b"SameSite=none", b"SameSite=lax")) for name, value in headers]
                message = {**message, "headers": lax}
            await send(message)

        address = (scope.get("client") or ("",))[0]
        async with self.logins.setdefault(address, Lock()):
            await self.app(scope, receive, send_login)
            if is_wrong:
                await sleep(SECONDS_AFTER_WRONG_LOGIN)


def delete_oldest(folder: Path, max_bytes: int) -> None:
    """Deletes the oldest files of a folder until at most a number of bytes is left."""
    files = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Gradio deletes files too
            files += [(path.stat(), path)] if path.is_file() else []
    num_bytes = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if num_bytes > max_bytes:
            path.unlink(missing_ok=True)
            num_bytes -= status.st_size
