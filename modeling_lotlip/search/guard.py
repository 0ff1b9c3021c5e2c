# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What visitors may send to the search page."""

import json

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


# The most bytes of an uploaded picture, and of any other request
MAX_UPLOAD, MAX_REQUEST = 64 * 2**20, 2**20
# What is around the picture in the request that uploads it
ENVELOPE = 2**16
# Addresses of Gradio that start programs, write files or ask other servers, and that the page has no use for
UNUSED = ("proxy=", "process_recording", "deep_link", "vibe-")
NOTHING_FETCHED = "This page fetches nothing from elsewhere: upload the picture."


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


class Guard:
    """
    Stands before Gradio's server, as ASGI middleware: requests have a size, and name no file of another machine, which
    Gradio would fetch for a visitor.

    Args:
        app (`ASGIApp`):
            The server.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        is_upload = request.headers.get("content-type", "").lower().startswith("multipart/")
        refusal = check_headers(request, MAX_UPLOAD + ENVELOPE if is_upload else MAX_REQUEST)
        if refusal is None and not is_upload:  # what is uploaded goes to the disk as it comes
            try:
                body = await request.body()
            except ClientDisconnect:
                return
            refusal, receive = check_body(body), again(body, receive)
        await (refusal or self.app)(scope, receive, send)


def refuse(status: int, message: str) -> JSONResponse:
    """An error in the form of Gradio's own."""
    return JSONResponse({"detail": message}, status)


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


def again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
