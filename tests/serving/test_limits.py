"""What a request may hold, up to the limits of a server."""

import asyncio
import base64
import io
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from starlette.applications import Starlette

from modeling_lotlip.serving import embedder as module
from modeling_lotlip.serving.arguments import ServingArguments
from modeling_lotlip.serving.embedder import Embedder, RequestError, check_embeds, is_image, open_data_url
from modeling_lotlip.serving.server import (
    EmbeddingRequest,
    SearchRequest,
    create_server,
    encode,
    make_error,
    read_request,
)


def test_a_server_has_a_limit_of_connections_and_of_what_it_finishes():
    config = create_server(Starlette()).config
    assert (config.limit_concurrency, config.timeout_graceful_shutdown) == (128, 10)


def make_data_url(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_an_image_has_as_many_pixels_as_it_may(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 12)
    _, num_pixels = open_data_url(0, make_data_url(4, 3))
    assert num_pixels == 12
    with pytest.raises(RequestError, match=r"`input\[2\]` has 13 x 1 pixels, the max is 12") as raised:
        open_data_url(2, make_data_url(13, 1))
    assert raised.value.status_code == 413


@pytest.mark.parametrize("entry", ["data:image/png,abc", "data:;base64", "data:image/png;base64,%%%%"])
def test_a_data_url_that_holds_no_image_is_refused(entry):
    with pytest.raises(RequestError, match=r"`input\[1\]` ") as raised:
        open_data_url(1, entry)
    assert raised.value.status_code == 400


@pytest.fixture
def embedder() -> Embedder:
    encoder = SimpleNamespace(dim=8, matryoshka_dims=(8, 4, 2))
    return Embedder(encoder, ServingArguments(max_pixels=20, max_batch_size=3))


def test_images_of_a_request_have_as_many_pixels_as_they_may(embedder):
    assert embedder.check_pixels([(b"a", 12), (b"b", 8)]) == [b"a", b"b"]
    with pytest.raises(RequestError, match="have 21 pixels, the max is 20"):
        embedder.check_pixels([(b"a", 12), (b"b", 9)])


def test_a_server_is_busy_when_its_queue_is_full(embedder):
    assert embedder.max_waiting == module.MAX_WAITING
    embedder.num_waiting = embedder.max_waiting
    with pytest.raises(RequestError, match="The server is busy: it has 1024 texts") as raised:
        asyncio.run(embedder.embed(["a boat"]))
    assert (raised.value.status_code, raised.value.headers) == (503, {"Retry-After": "1"})
    assert embedder.num_waiting == embedder.max_waiting
    assert embedder.dims == [8, 4, 2]


def test_a_large_request_fits_into_the_queue():
    encoder = SimpleNamespace(dim=8, matryoshka_dims=())
    assert Embedder(encoder, ServingArguments(max_batch_size=5000)).max_waiting == 5000


@pytest.mark.parametrize(
    ("value", "message"), [(None, "The model failed at"), (torch.tensor([torch.inf]), "no finite")]
)
def test_an_entry_without_an_embedding_is_named(value, message):
    good = torch.ones(1)
    assert check_embeds([good, good], torch.nn.Identity()).shape == (2, 1)
    with pytest.raises(RequestError, match=rf"{message}.*`input\[1\]`") as raised:
        check_embeds([good, value], torch.nn.Identity())
    assert raised.value.status_code == 500


class Asked:
    """A request of two parts."""

    def __init__(self, body: bytes):
        self.body = body

    async def stream(self):
        yield self.body[:5]
        yield self.body[5:]


def ask(form: type, max_bytes: int = 1000, **fields: object) -> EmbeddingRequest | SearchRequest:
    body = json.dumps({"input": "a", "model": "m"} | fields).encode()
    return asyncio.run(read_request(Asked(body), form, max_bytes))


def test_a_request_has_as_many_bytes_as_it_may():
    size = len(json.dumps({"input": "a", "model": "m"}))
    assert ask(EmbeddingRequest, size).input == "a"
    with pytest.raises(RequestError, match=f"more than {size - 1} bytes: send less"):
        ask(EmbeddingRequest, size - 1)


@pytest.mark.parametrize("k", [1, 1000])
def test_a_search_asks_for_one_to_a_thousand_results(k):
    assert ask(SearchRequest, k=k).k == k
    with pytest.raises(RequestError, match="`k`: "):
        ask(SearchRequest, k={1: 0, 1000: 1001}[k])


def test_a_question_has_the_defaults_of_openai_and_of_the_command():
    assert ask(EmbeddingRequest).encoding_format == "float"
    assert (ask(SearchRequest).k, ask(SearchRequest).kind) == (10, "image")


@pytest.mark.parametrize(("status", "error_type"), [(499, "invalid_request_error"), (500, "server_error")])
def test_an_error_is_of_the_request_or_of_the_server(status, error_type):
    answer = make_error(status, "no", "input")
    assert answer.status_code == status
    error = {"message": "no", "type": error_type, "param": "input", "code": None}
    assert json.loads(answer.body)["error"] == error


def test_an_embedding_is_a_list_or_little_endian_floats():
    assert encode(torch.tensor([1.0, -2.0]), "float") == [1, -2]
    encoded = encode(torch.tensor([1.0, -2.0]), "base64")
    assert base64.b64decode(encoded) == bytes.fromhex("0000803f000000c0")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (" \n", "is empty: send a text or an image"),
        ("\0", "is empty: send a text or an image"),
        ("https://x.org/a.png", "is an address, and this server fetches none"),
        (" FILE:/a.png ", "is an address, and this server fetches none"),
    ],
)
def test_an_entry_that_is_no_text_and_no_image_is_refused(entry, message):
    with pytest.raises(RequestError, match=rf"`input\[3\]` {message}"):
        is_image(entry, 3)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("a boat", False), ("see https://x.org/a.png", False), (" DATA:image/png;base64,", True), ("data", False)],
)
def test_a_data_url_is_an_image_and_a_text_with_an_address_is_none(entry, expected):
    assert is_image(entry, 0) == expected
