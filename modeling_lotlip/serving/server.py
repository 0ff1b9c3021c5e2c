# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""OpenAI's `/v1/embeddings` over an [`Embedder`]: HTTP and JSON."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import torch

from ..encoder.arguments import ModelArguments
from ..encoder.dual_encoder import load_encoder
from ..table.embed import describe_missing
from ..table.storage import EmbeddingTable
from ..utils.addresses import is_loopback, listen
from .arguments import ServingArguments


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
    from .embedder import Embedded, Embedder, RequestError
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


async def read_request(request: Request, form: type[Question], max_bytes: int) -> Question:
    """What a request asks for. Raises a `RequestError` if it is no such request, or more than may be sent."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RequestError(f"The request has more than {max_bytes} bytes: send less.", None, 413)
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = f"{'The request' if param is None else f'`{param}`'}: {first['msg']}."
        if param == "input" and first["type"] != "missing":
            message = NO_TOKENS
        raise RequestError(message, param) from error


async def embed(request: Request, form: type[Question]) -> tuple[Question, Embedded]:
    """What a request asks for, and the embeddings of its entries."""
    name, embedder = request.app.state.name, request.app.state.embedder
    asked = await read_request(request, form, embedder.limits.max_bytes)
    if asked.model != name:
        raise RequestError(f"The model `{asked.model}` is not served here, but `{name}`.", "model", 404)
    if asked.dimensions is not None and asked.dimensions not in embedder.dims:
        known, given = " or ".join(map(str, embedder.dims)), asked.dimensions
        message = f"`dimensions` must be {known}, as this model's embeddings have, or left out: got {given}."
        raise RequestError(message, "dimensions")
    entries, most = [asked.input] if isinstance(asked.input, str) else asked.input, embedder.limits.max_batch_size
    if not 0 < len(entries) <= most:
        raise RequestError(f"`input` has {len(entries)} entries, a request must have 1 to {most}.")
    return asked, await embedder.embed(entries, request.app.state.table.splitter if form is SearchRequest else None)


def encode(embedding: torch.Tensor, encoding_format: str) -> list[float] | str:
    """An embedding (dim,) as numbers, or as base64 of float32, little end first."""
    if encoding_format == "float":
        return embedding.tolist()
    return base64.b64encode(embedding.numpy().astype("<f4").tobytes()).decode()


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
        raise RequestError("There is no table to search in: start with `--embeddings DIR`.", None, 404)
    asked, embedded = await embed(request, SearchRequest)
    if asked.kind not in table.settings["kinds"]:
        kinds = " or ".join(table.settings["kinds"])
        raise RequestError(f"`kind` must be {kinds}, as the table has: got {asked.kind}.", "kind")
    for index, embedding in enumerate(embedded.embeds):
        found = await asyncio.to_thread(table.search, embedding, asked.k, asked.kind)
        rows = zip(found.keys, found.positions, found.similarities.tolist())
        results = [dict(zip(("key", "position", "similarity"), row)) for row in rows]
        data.append({"object": "results", "index": index, "results": results})
    return list_data(data, asked, embedded)


async def list_models(request: Request) -> JSONResponse:
    """The one model that is served."""
    model = {"id": request.app.state.name, "object": "model", "created": 0, "owned_by": "lotlip"}
    return JSONResponse({"object": "list", "data": [model]})


async def tell_health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def refuse(status: int, message: str, param: str | None = None, headers: dict | None = None) -> JSONResponse:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": None}
    return JSONResponse({"error": error}, status, headers)


async def report(request: Request, error: Exception) -> JSONResponse:
    """The answer after an error. One that is not the client's mistake has details only in the server's log."""
    status, message = getattr(error, "status_code", 500), getattr(error, "detail", "The server failed.")
    return refuse(status, message, getattr(error, "param", None), getattr(error, "headers", None))


def create_app(embedder: Embedder, name: str, table: EmbeddingTable | None = None) -> Starlette:
    """The server as an ASGI application, of a model that requests call `name`. `/v1/search` answers from a table."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(embedder.run())
        yield
        running.cancel()

    routes = [
        Route("/v1/embeddings", create_embeddings, methods=["POST"]),
        Route("/v1/search", search, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/health", tell_health, methods=["GET"]),
    ]
    handlers = dict.fromkeys((HTTPException, ClientDisconnect, Exception), report)
    middleware = [Middleware(SameOrigin, is_loopback(embedder.limits.host), refuse)]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.state.embedder, app.state.name, app.state.table = embedder, name, table
    return app


def create_server(app: Starlette) -> uvicorn.Server:
    """Runs an application by `run(sockets=[...])`, until Ctrl-C or until `should_exit` is set."""
    options = {"limit_concurrency": MAX_CONNECTIONS, "timeout_graceful_shutdown": SECONDS_TO_FINISH}
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))


def serve(serving: ServingArguments, model_arguments: ModelArguments) -> None:
    """Serves a dual encoder until Ctrl-C. Raises a `ValueError` if port, model or embeddings cannot be used."""
    name = model_arguments.model_name_or_path
    served_name = serving.served_model_name or name
    with listen(serving.host, serving.port) as listener:
        table = None if serving.embeddings_dir is None else EmbeddingTable(serving.embeddings_dir)
        if table is not None and model_arguments.max_length is None:
            model_arguments.max_length = table.settings.get("max_length")
        encoder = load_encoder(name, model_arguments)
        encoder.check_single_embeddings()
        if table is not None:
            table.check_model(encoder)
            for line in describe_missing(table):
                print(line)
        embedder = Embedder(encoder, serving, model_arguments.batch_size)
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"{served_name} is served at http://{host}:{port}/v1. Ctrl-C ends it.", flush=True)
        create_server(create_app(embedder, served_name, table)).run(sockets=[listener])
