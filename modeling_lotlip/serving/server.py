# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Answers OpenAI's `/v1/embeddings` with an [`Embedder`]: HTTP and JSON."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import torch

from ..encoder.arguments import ModelArguments
from ..encoder.dual_encoder import load_encoder
from ..encoder.fastest import hint_at_auto
from ..table.embed import describe_missing, load_encoder_of_table
from ..table.memory import keep_in_memory
from ..table.storage import EmbeddingTable
from ..utils.addresses import is_loopback, listen
from ..utils.terminal import without_stop
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
    from .finder import Finder
except ImportError as error:
    raise ImportError(f'The server lacks {error.name}: `pip install "lotlip[serve]"` brings it.') from error


MAX_CONNECTIONS = 128  # further ones get a 503, after which OpenAI's client tries again
SECONDS_TO_FINISH = 10  # what is being answered, after Ctrl-C


class Question(BaseModel):
    """Declares the fields that the bodies of all requests have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str]
    model: str
    user: str | None = None
    dimensions: int | None = None


class EmbeddingRequest(Question):
    """Declares the body of a request for embeddings, by OpenAI's API."""

    encoding_format: Literal["float", "base64"] = "float"


class SearchRequest(Question):
    """Declares the body of a request for the nearest images or captions in the table to each text or image."""

    dimensions: None = None
    k: int = Field(10, ge=1, le=1000)
    kind: Literal["image", "short", "long"] = "image"


async def read_request(request: Request, form: type[Question], max_bytes: int) -> Question:
    """Reads the body of a request. Raises a `RequestError` if it is none of that form, or too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RequestError(f"The request has more than {max_bytes} bytes: send less.", None, 413)
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as error:
        raise describe_problem(error) from error


def describe_problem(error: ValidationError) -> RequestError:
    """Describes the first problem of a body, in the form of OpenAI: it names the field, of `input` also the entry."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    requirement = without_stop(first["msg"])
    if not first["loc"]:
        return RequestError(f"The request: {requirement}.", None)
    name = str(first["loc"][0])
    if name != "input" or first["type"] == "missing":
        return RequestError(f"`{name}`: {requirement}.", name)
    # pydantic names the entry last, after which of both types it tried
    bad_entries = [problem["loc"][-1] for problem in problems if isinstance(problem["loc"][-1], int)]
    if not bad_entries:
        return RequestError("`input` must be a string or a list of strings.", name)
    return RequestError(
        f"`input[{bad_entries[0]}]` must be a string. Lists of tokens are of OpenAI's tokenizer: "
        "send the text (LangChain does with `check_embedding_ctx_length=False`).",
        name,
    )


async def embed(
    request: Request,
    form: type[Question],
    splitter: str | None = None,
) -> tuple[Question, Embedded]:
    """Reads a request and embeds its entries; with a `splitter` its texts are queries: see [`mark_query`]."""
    name = request.app.state.name
    embedder = request.app.state.embedder
    asked = await read_request(request, form, embedder.limits.max_bytes)
    if asked.model != name:
        raise RequestError(f"The model `{asked.model}` is not served here, but `{name}`.", "model", 404)
    if asked.dimensions is not None and asked.dimensions not in embedder.dims:
        raise RequestError(
            f"`dimensions` must be {' or '.join(map(str, embedder.dims))}, as this model's "
            f"embeddings have, or left out: got {asked.dimensions}.",
            "dimensions",
        )
    entries = asked.input
    if isinstance(entries, str):
        entries = [entries]
    max_batch_size = embedder.limits.max_batch_size
    if not 0 < len(entries) <= max_batch_size:
        raise RequestError(f"`input` has {len(entries)} entries, a request must have 1 to {max_batch_size}.")
    return asked, await embedder.embed(entries, splitter)


def encode(embedding: torch.Tensor, encoding_format: str) -> list[float] | str:
    """Writes an embedding of shape `(dim,)` as floats, or as base64 of float32, little end first."""
    if encoding_format == "float":
        return embedding.tolist()
    return base64.b64encode(embedding.numpy().astype("<f4").tobytes()).decode()


def list_data(data: list[dict], asked: Question, embedded: Embedded) -> JSONResponse:
    """Makes the answer to a request, in OpenAI's form."""
    usage = {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens}
    headers = {
        "x-truncated-texts": str(embedded.num_truncated),
        "x-unknown-texts": str(embedded.num_unknown),
    }
    content = {"object": "list", "data": data, "model": asked.model, "usage": usage}
    return JSONResponse(content, headers=headers)


async def create_embeddings(request: Request) -> Response:
    """Answers `/v1/embeddings`."""
    asked, embedded = await embed(request, EmbeddingRequest)
    return await asyncio.to_thread(list_embeddings, asked, embedded)  # 0.1 s for the floats of a full request


def list_embeddings(asked: EmbeddingRequest, embedded: Embedded) -> JSONResponse:
    """Makes the answer to a request for embeddings."""
    embeds = torch.nn.functional.normalize(embedded.embeds[:, : asked.dimensions], dim=-1)
    data = [
        {"object": "embedding", "index": index, "embedding": encode(embedding, asked.encoding_format)}
        for index, embedding in enumerate(embeds)
    ]
    return list_data(data, asked, embedded)


async def answer_search(request: Request) -> Response:
    """Answers `/v1/search`: the nearest keys of the table to each text or image, with their cosine similarities."""
    table = request.app.state.table
    if table is None:
        raise RequestError("There is no table to search in: start with `--embeddings DIR`.", None, 404)
    asked, embedded = await embed(request, SearchRequest, table.splitter)
    if asked.kind not in table.settings["kinds"]:
        raise RequestError(
            f"`kind` must be {' or '.join(table.settings['kinds'])}, as the table has: got {asked.kind}.", "kind"
        )
    data = []
    answers = await request.app.state.finder.find(embedded.embeds, asked.k, asked.kind)
    for index, found in enumerate(answers):
        rows = zip(found.keys, found.positions, found.similarities.tolist())
        results = [{"key": key, "position": position, "similarity": similarity} for key, position, similarity in rows]
        data.append({"object": "results", "index": index, "results": results})
    return list_data(data, asked, embedded)


async def list_models(request: Request) -> JSONResponse:
    """Lists the one model that is served."""
    model = {"id": request.app.state.name, "object": "model", "created": 0, "owned_by": "lotlip"}
    return JSONResponse({"object": "list", "data": [model]})


async def report_health(request: Request) -> JSONResponse:
    """Answers that the server runs."""
    return JSONResponse({"status": "ok"})


def make_error(
    status: int,
    message: str,
    param: str | None = None,
    headers: dict | None = None,
) -> JSONResponse:
    """
    Makes an error in OpenAI's form.

    Args:
        status (`int`):
            The HTTP status.
        message (`str`):
            What is wrong.
        param (`str`, *optional*):
            The field of the request that is wrong.
        headers (`dict`, *optional*):
            Further headers of the answer.
    """
    error_type = "server_error"
    if status < 500:
        error_type = "invalid_request_error"
    error = {"message": message, "type": error_type, "param": param, "code": None}
    return JSONResponse({"error": error}, status, headers)


async def report(request: Request, error: Exception) -> JSONResponse:
    """Makes the answer after an error. One that is not the client's mistake has details only in the server's log."""
    status = getattr(error, "status_code", 500)
    message = getattr(error, "detail", "The server failed.")
    return make_error(status, message, getattr(error, "param", None), getattr(error, "headers", None))


def create_app(embedder: Embedder, name: str, table: EmbeddingTable | None = None) -> Starlette:
    """Makes the server, an ASGI application, of a model that requests call `name`; `/v1/search` needs a table."""

    finder = None
    if table is not None:
        finder = Finder(table)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = [asyncio.create_task(embedder.run())]
        if finder is not None:
            running.append(asyncio.create_task(finder.run()))
        yield
        for task in running:
            task.cancel()

    routes = [
        Route("/v1/embeddings", create_embeddings, methods=["POST"]),
        Route("/v1/search", answer_search, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/health", report_health, methods=["GET"]),
    ]
    handlers = dict.fromkeys((HTTPException, ClientDisconnect, Exception), report)
    middleware = [Middleware(SameOrigin, is_loopback(embedder.limits.host), make_error)]
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.state.embedder = embedder
    app.state.name = name
    app.state.table = table
    app.state.finder = finder
    return app


def create_server(app: Starlette) -> uvicorn.Server:
    """Makes what runs an application, by `run(sockets=[...])`, until Ctrl-C or until `should_exit` is set."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return uvicorn.Server(config)


def serve_encoder(serving: ServingArguments, model_arguments: ModelArguments) -> None:
    """Serves a dual encoder until Ctrl-C. Raises a `ValueError` if port, model or embeddings cannot be used."""
    name = model_arguments.model_name_or_path
    served_name = serving.served_model_name or name
    with listen(serving.host, serving.port) as listener:
        table = None
        if serving.embeddings_dir is not None:
            table = EmbeddingTable(serving.embeddings_dir)
            encoder = load_encoder_of_table(table, name, model_arguments)
            keep_in_memory(table)
            for line in describe_missing(table):
                print(line)
        else:
            encoder = load_encoder(name, model_arguments)
            encoder.check_single_embeddings()
        hint_at_auto(model_arguments, encoder.model, encoder.processor, encoder.computation)
        embedder = Embedder(encoder, serving, model_arguments.batch_size)
        host, port = listener.getsockname()[:2]
        if ":" in host:  # of IPv6
            host = f"[{host}]"
        print(f"{served_name} is served at http://{host}:{port}/v1. Ctrl-C ends it.", flush=True)
        create_server(create_app(embedder, served_name, table)).run(sockets=[listener])
