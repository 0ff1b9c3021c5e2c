# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What browsers and visitors may send to a server of this package, as ASGI middleware."""

import json
from asyncio import Lock, sleep
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..network import is_loopback


# The most bytes of an uploaded image, of all of them together, and of any other request
MAX_UPLOAD, MAX_UPLOADS, MAX_REQUEST = 64 * 2**20, 2**30, 2**20
# What is around the image in the request that uploads it
ENVELOPE = 2**16
# What a wrong login costs
SECONDS_AFTER_WRONG_LOGIN = 1.0
# Addresses of Gradio that start programs, write files or ask other servers, and that the page has no use for
UNUSED = ("proxy=", "process_recording", "deep_link", "vibe-")
NOTHING_FETCHED = "This page fetches nothing from elsewhere: upload the image."


def refuse(status: int, message: str) -> JSONResponse:
    """An error in the form of Gradio's."""
    return JSONResponse({"detail": message}, status)


class SameOrigin:
    """
    Answers no other web site: a browser may open the page from anywhere, but what comes from the scripts, forms and
    images of another site is refused, and so is a name that an attacker has given to this machine (DNS rebinding).

    Args:
        app (`ASGIApp`):
            The server.
        is_local (`bool`):
            Whether only this machine reaches it, so that its host has no other name than a loopback one.
    """

    def __init__(self, app: ASGIApp, is_local: bool):
        self.app, self.is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] != "lifespan" and (problem := self.find_problem(Headers(scope=scope))):
            app = refuse(403, problem)
        await app(scope, receive, send)

    def find_problem(self, headers: Headers) -> str | None:
        """Why a request is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return f"This server answers at 127.0.0.1 and localhost, not at {host!r}."
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")  # the latter: another port, say
        if is_foreign and headers.get("sec-fetch-mode") == "navigate":  # a link
            is_foreign = False
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            is_foreign = True
        return "This server answers no other web site." if is_foreign else None


class Guard:
    """
    Stands before Gradio's server: requests have a size, and name no file of another machine, which Gradio would fetch
    for a visitor; wrong logins take time; the cookie of a user stays on the page's site.

    Args:
        app (`ASGIApp`):
            The server.
        uploads (`Path`):
            The folder of uploaded images. The oldest ones are deleted where there are more than `MAX_UPLOADS` bytes.
    """

    def __init__(self, app: ASGIApp, uploads: Path):
        self.app, self.uploads = app, uploads
        self.num_uploading = 0  # bytes
        self.logins = WeakValueDictionary()  # a lock for each address that logs in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, route = Request(scope, receive), scope["path"].rstrip("/")
        is_upload = route.endswith("/upload")
        refusal = check_headers(request, MAX_UPLOAD + ENVELOPE if is_upload else MAX_REQUEST)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif route.endswith("/login"):
            await self.log_in(scope, receive, send)
        elif is_upload:
            await self.upload(int(request.headers.get("content-length", "0")), scope, receive, send)
        else:
            try:
                body = await request.body()
            except ClientDisconnect:
                return
            await (check_body(body) or self.app)(scope, repeat(body, receive), send)

    async def upload(self, num_bytes: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes an image on, which goes to the disk as it comes."""
        app, self.num_uploading = self.app, self.num_uploading + num_bytes
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
                headers = MutableHeaders(raw=message["headers"])
                cookies = headers.getlist("set-cookie")
                del headers["set-cookie"]
                for cookie in cookies:
                    headers.append("set-cookie", cookie.replace("SameSite=none", "SameSite=lax"))
                message = {**message, "headers": headers.raw}
            await send(message)

        address = (scope.get("client") or ("",))[0]
        async with self.logins.setdefault(address, Lock()):
            await self.app(scope, receive, send_login)
            if is_wrong:
                await sleep(SECONDS_AFTER_WRONG_LOGIN)


def delete_oldest(folder: Path, max_bytes: int) -> None:
    """Deletes the oldest files of a folder until at most so many bytes are left."""
    files = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Gradio deletes files too
            files += [(path.stat(), path)] if path.is_file() else []
    num_bytes = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if num_bytes <= max_bytes:
            return
        path.unlink(missing_ok=True)
        num_bytes -= status.st_size


def names_address(value: object) -> bool:
    """Whether what was sent, as JSON, holds a file that is elsewhere: Gradio would fetch it."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and "://" in path:
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def check_headers(request: Request, limit: int) -> JSONResponse | None:
    """The answer to a request for what the page has no use for, or of more bytes than a limit."""
    route = request.scope["path"].partition("/gradio_api/")[2]
    if route.startswith(UNUSED) or (route.startswith("file=") and "://" in route):
        return refuse(403, NOTHING_FETCHED)
    if "transfer-encoding" in request.headers:
        return refuse(411, "Send the length of the request.")
    if int(request.headers.get("content-length", "0")) > limit:
        return refuse(413, f"The request has more than {limit} bytes.")
    return None


def check_body(body: bytes) -> JSONResponse | None:
    """The answer to a request that names a file of another machine."""
    try:
        return refuse(403, NOTHING_FETCHED) if names_address(json.loads(body)) else None
    except RecursionError:
        return refuse(400, "The JSON is nested too deeply.")
    except ValueError:  # no JSON: the server says so where it wants some
        return None


def repeat(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return messages.pop() if messages else await receive()

    return receive_body
