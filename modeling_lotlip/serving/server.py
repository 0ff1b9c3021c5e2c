# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""OpenAI's `/v1/embeddings` over an [`Embedder`]: HTTP and JSON."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import torch

from ..embedding.arguments import ModelArguments
from ..embedding.models import load_model
from .arguments import ServingArguments
from .embedder import Embedder, RequestError


try:
    import uvicorn
    from pydantic import BaseModel, ConfigDict, ValidationError
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
except ImportError as error:
    raise ImportError(f'The server lacks {error.name}: `pip install "modeling_lotlip[serve]"` brings it.') from error


MAX_REQUESTS = 128  # that are answered at once
SECONDS_TO_FINISH = 10  # what is being answered, after Ctrl-C


class EmbeddingRequest(BaseModel):
    """The body of a request, by OpenAI's API."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


async def read_request(request: Request, limits: ServingArguments) -> EmbeddingRequest:
    """Reads no more than may be sent. Raises a `RequestError` if it is no such request."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("Send JSON, with `Content-Type: application/json`.", status=415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.max_bytes:
            raise RequestError(f"The request has more than {limits.max_bytes} bytes: send less.", status=413)
    try:
        return EmbeddingRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "extra_forbidden":
            raise RequestError(f"`{param}` is no field of a request here: leave it out.", param) from error
        if param == "input" and first["type"] != "missing":
            raise RequestError("`input` must be a string or a list of strings.", param) from error
        prefix = "The request" if param is None else f"`{param}`"
        raise RequestError(f"{prefix}: {first['msg']}.", param) from error


def encode(embedding: torch.Tensor, encoding_format: str) -> list[float] | str:
    """An embedding (dim,) as numbers, or as base64 of float32, little end first."""
    if encoding_format == "float":
        return embedding.tolist()
    return base64.b64encode(embedding.numpy().astype("<f4").tobytes()).decode()


async def create_embeddings(request: Request) -> JSONResponse:
    """The endpoint."""
    state = request.app.state
    if state.num_requests >= MAX_REQUESTS:
        raise RequestError(f"{MAX_REQUESTS} requests are being answered: try again later.", status=503)
    state.num_requests += 1
    try:
        limits = state.embedder.limits
        asked = await read_request(request, limits)
        entries = [asked.input] if isinstance(asked.input, str) else asked.input
        if not entries:
            raise RequestError("`input` is empty: send a text or a picture.", "input")
        if len(entries) > limits.max_batch_size:
            message = f"`input` has {len(entries)} entries, the most in a request are {limits.max_batch_size}."
            raise RequestError(message, "input")
        embeds, prepared = await state.embedder.embed(entries)
    finally:
        state.num_requests -= 1
    data = [
        {"object": "embedding", "index": index, "embedding": encode(embedding, asked.encoding_format)}
        for index, embedding in enumerate(embeds)
    ]
    usage = {"prompt_tokens": prepared.num_tokens, "total_tokens": prepared.num_tokens}
    return JSONResponse(
        {"object": "list", "data": data, "model": asked.model, "usage": usage},
        headers={"x-truncated-texts": str(prepared.num_truncated)},
    )


async def list_models(request: Request) -> JSONResponse:
    """The one model that is served."""
    model = {"id": request.app.state.name, "object": "model", "created": 0, "owned_by": "lotlip"}
    return JSONResponse({"object": "list", "data": [model]})


async def report(request: Request, error: Exception) -> JSONResponse:
    """An error in OpenAI's form. What is not the client's mistake is told in the server's log alone."""
    message, status = "The server failed.", 500
    if isinstance(error, HTTPException):  # no such address or method
        message, status = error.detail, error.status_code
    elif isinstance(error, RequestError):
        message, status = str(error), error.status
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": getattr(error, "param", None), "code": None}
    return JSONResponse({"error": body}, status, headers=getattr(error, "headers", None))


def create_app(embedder: Embedder, name: str) -> Starlette:
    """
    The server as an ASGI application.

    Args:
        embedder (`Embedder`):
            What computes embeddings.
        name (`str`):
            What `/v1/models` calls the model.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(embedder.run())
        yield
        task.cancel()
        embedder.readers.shutdown(wait=False)
        embedder.model_thread.shutdown(wait=False)

    routes = [
        Route("/v1/embeddings", create_embeddings, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
    ]
    handlers = {RequestError: report, HTTPException: report, Exception: report}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.state.embedder, app.state.name, app.state.num_requests = embedder, name, 0
    return app


def create_server(app: Starlette) -> uvicorn.Server:
    """Runs an application by `run(sockets=[...])`, until Ctrl-C or until `should_exit` is set."""
    options = {"log_level": "warning", "timeout_graceful_shutdown": SECONDS_TO_FINISH}
    return uvicorn.Server(uvicorn.Config(app, **options))


def listen(host: str, port: int) -> socket.socket:
    """Raises a `ValueError` if that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--host {host} --port {port} cannot be listened at: {reason}. Name others.") from error


def serve(serving: ServingArguments, model_arguments: ModelArguments) -> None:
    """
    Serves a dual encoder until Ctrl-C.

    Raises:
        `ValueError`: if the port is taken, or the model cannot be used.
    """
    name = model_arguments.model_name_or_path
    with listen(serving.host, serving.port) as listener:
        model, processor = load_model(name, model_arguments)
        embedder = Embedder(model, processor, serving, model_arguments.batch_size, model_arguments.max_length)
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"{name} is served at http://{host}:{port}/v1. Ctrl-C ends it.", flush=True)
        create_server(create_app(embedder, name)).run(sockets=[listener])
