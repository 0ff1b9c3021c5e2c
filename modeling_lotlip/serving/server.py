# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""OpenAI's `/v1/embeddings` over an [`Embedder`]: HTTP and JSON."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import torch

from ..embedding.arguments import ModelArguments
from ..embedding.models import load_model
from ..embedding.table import EmbeddingTable
from ..network import is_loopback, listen
from ..search.query import Query, search_table
from .arguments import ServingArguments
from .embedder import Embedded, Embedder, RequestError


try:
    import uvicorn
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from ..search.guard import SameOrigin
except ImportError as error:
    raise ImportError(f'The server lacks {error.name}: `pip install "lotlip[serve]"` brings it.') from error


MAX_CONNECTIONS = 128  # further ones get a 503, after which OpenAI's client tries again
SECONDS_TO_FINISH = 10  # what is being answered, after Ctrl-C
NO_TOKENS = (
    "`input` must be a string or a list of strings. Lists of tokens are of OpenAI's tokenizer: send the text "
    "(LangChain does with `check_embedding_ctx_length=False`)."
)


class Question(BaseModel):
    """What the bodies of requests have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str]
    model: str
    user: str | None = None
    dimensions: int | None = None


class EmbeddingRequest(Question):
    """The body of a request for embeddings, by OpenAI's API."""

    encoding_format: Literal["float", "base64"] = "float"


class SearchRequest(Question):
    """The body of a request for what is nearest in the table to each text or image."""

    dimensions: None = None
    k: int = Field(10, ge=1, le=1000)
    kind: Literal["image", "short", "long"] = "image"


async def read_request(request: Request, max_bytes: int) -> bytes:
    """The body. Raises a `RequestError` if it is no JSON, or more than may be sent."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("Send JSON, with `Content-Type: application/json`.", status=415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RequestError(f"The request has more than {max_bytes} bytes: send less.", status=413)
    return bytes(body)


def parse_request(body: bytes, form: type[Question]) -> Question:
    """Raises a `RequestError` if it is no such request."""
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = f"{'The request' if param is None else f'`{param}`'}: {first['msg']}."
        if first["type"] == "extra_forbidden":
            message = f"`{param}` is no field of a request here: leave it out."
        elif param == "input" and first["type"] != "missing":
            message = NO_TOKENS
        raise RequestError(message, param) from error


def check_request(asked: Question, name: str, dims: list[int], max_batch_size: int) -> list[str]:
    """The texts and images that are asked for. Raises a `RequestError` if the model cannot answer that."""
    if asked.model != name:
        message = f"The model `{asked.model}` is not served here, but `{name}`."
        raise RequestError(message, "model", status=404, code="model_not_found")
    if asked.dimensions is not None and asked.dimensions not in dims:
        known, given = " or ".join(map(str, dims)), asked.dimensions
        message = f"`dimensions` must be {known}, as this model's embeddings have, or left out: got {given}."
        raise RequestError(message, "dimensions")
    entries = [asked.input] if isinstance(asked.input, str) else asked.input
    if not entries:
        raise RequestError("`input` is empty: send a text or an image.", "input")
    if len(entries) > max_batch_size:
        message = f"`input` has {len(entries)} entries, the most in a request are {max_batch_size}."
        raise RequestError(message, "input")
    return entries


def encode(embedding: torch.Tensor, encoding_format: str) -> list[float] | str:
    """An embedding (dim,) as numbers, or as base64 of float32, little end first."""
    if encoding_format == "float":
        return embedding.tolist()
    return base64.b64encode(embedding.numpy().astype("<f4").tobytes()).decode()


async def embed(request: Request, form: type[Question]) -> tuple[Question, Embedded]:
    """What a request asks for, and the embeddings of its entries."""
    embedder, limits = request.app.state.embedder, request.app.state.embedder.limits
    asked = parse_request(await read_request(request, limits.max_bytes), form)
    entries = check_request(asked, request.app.state.name, embedder.dims, limits.max_batch_size)
    return asked, await embedder.embed(entries)


def list_data(data: list[dict], asked: Question, embedded: Embedded) -> JSONResponse:
    """The answer to a request in OpenAI's form."""
    usage = {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens}
    return JSONResponse(
        {"object": "list", "data": data, "model": asked.model, "usage": usage},
        headers={"x-truncated-texts": str(embedded.num_truncated)},
    )


async def create_embeddings(request: Request) -> Response:
    """The endpoint of embeddings."""
    asked, embedded = await embed(request, EmbeddingRequest)
    embeds = torch.nn.functional.normalize(embedded.embeds[:, : asked.dimensions], dim=-1)
    data = [
        {"object": "embedding", "index": index, "embedding": encode(embedding, asked.encoding_format)}
        for index, embedding in enumerate(embeds)
    ]
    return list_data(data, asked, embedded)


async def search(request: Request) -> Response:
    """The endpoint of the table: the keys that are nearest to each text or image, with their cosine similarities."""
    table, data = request.app.state.table, []
    if table is None:
        raise RequestError("There is no table to search in: start with `--embeddings DIR`.", status=404)
    asked, embedded = await embed(request, SearchRequest)
    if asked.kind not in table.settings["kinds"]:
        kinds = " or ".join(table.settings["kinds"])
        raise RequestError(f"`kind` must be {kinds}, as the table has: got {asked.kind}.", "kind")
    for index, embedding in enumerate(embedded.embeds):
        options = {"kind": asked.kind, "all_copies": True}
        found = await asyncio.to_thread(search_table, table, Query(embedding), asked.k, **options)
        results = [{"key": hit.key, "position": hit.position, "similarity": hit.similarity} for hit in found]
        data.append({"object": "results", "index": index, "results": results})
    return list_data(data, asked, embedded)


async def list_models(request: Request) -> JSONResponse:
    """The one model that is served."""
    model = {"id": request.app.state.name, "object": "model", "created": 0, "owned_by": "lotlip"}
    return JSONResponse({"object": "list", "data": [model]})


async def tell_health(request: Request) -> JSONResponse:
    """Whether embeddings are computed."""
    if request.app.state.running.done():
        raise RequestError("Nothing is computed any more: restart the server.", status=503)
    return JSONResponse({"status": "ok"})


def refuse(status: int, message: str, error: Exception | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    body = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error"}
    body |= {key: getattr(error, key, None) for key in ("param", "code")}
    return JSONResponse({"error": body}, status, headers=getattr(error, "headers", None))


async def report(request: Request, error: Exception) -> JSONResponse:
    """The answer after an error. An error that is not the client's mistake has details only in the server's log."""
    message, status = "The server failed.", 500
    if isinstance(error, HTTPException):  # no such address or method
        message, status = error.detail, error.status_code
    elif isinstance(error, RequestError):
        message, status = str(error), error.status
    elif isinstance(error, ClientDisconnect):  # nobody reads it
        message, status = "The client has left.", 400
    return refuse(status, message, error)


def create_app(embedder: Embedder, name: str, table: EmbeddingTable | None = None) -> Starlette:
    """
    The server as an ASGI application.

    Args:
        embedder (`Embedder`):
            What computes embeddings.
        name (`str`):
            What requests call the model.
        table (`EmbeddingTable`, *optional*):
            What `/v1/search` answers from.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.running = asyncio.create_task(embedder.run())
        yield
        app.state.running.cancel()
        embedder.close()

    routes = [
        Route("/v1/embeddings", create_embeddings, methods=["POST"]),
        Route("/v1/search", search, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/health", tell_health, methods=["GET"]),
    ]
    handlers = dict.fromkeys((RequestError, HTTPException, ClientDisconnect, Exception), report)
    middleware = [Middleware(SameOrigin, is_loopback(embedder.limits.host), refuse)]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.state.embedder, app.state.name, app.state.table = embedder, name, table
    return app


def create_server(app: Starlette) -> uvicorn.Server:
    """Runs an application by `run(sockets=[...])`, until Ctrl-C or until `should_exit` is set."""
    options = {"limit_concurrency": MAX_CONNECTIONS, "timeout_graceful_shutdown": SECONDS_TO_FINISH}
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))


def serve(serving: ServingArguments, model_arguments: ModelArguments) -> None:
    """
    Serves a dual encoder until Ctrl-C.

    Raises:
        `ValueError`: if the port is taken, the model cannot be used, or the embeddings are of another one.
    """
    name = model_arguments.model_name_or_path
    served_name = serving.served_model_name or name
    with listen(serving.host, serving.port) as listener:
        table = None if serving.embeddings_dir is None else EmbeddingTable(serving.embeddings_dir)
        model, processor = load_model(name, model_arguments)
        if table is not None:
            table.check_model(model, processor)
        embedder = Embedder(model, processor, serving, model_arguments.batch_size, model_arguments.max_length)
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"{served_name} is served at http://{host}:{port}/v1. Ctrl-C ends it.", flush=True)
        create_server(create_app(embedder, served_name, table)).run(sockets=[listener])
