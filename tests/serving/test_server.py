"""Embeddings by OpenAI's own client, on 127.0.0.1: equal to the library's, many clients at once, mistakes as 4xx."""

import asyncio
import base64
import io
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import openai
import pytest
import torch
from PIL import Image

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.batches import Batch
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.serving import embedder as embedder_module
from modeling_lotlip.serving.arguments import ServingArguments
from modeling_lotlip.serving.embedder import Embedder
from modeling_lotlip.serving.server import create_app, create_server
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.addresses import listen
from tests.helpers.embeddings import embed_images


TEXTS = ["a red boat", "a photo of the sea and the ground is sand", "a blue tree. the house is green."]
IMAGES = [make_scene(7, index).draw() for index in range(3)]


def data_url(image: Image.Image, format: str = "PNG", **options) -> str:
    file = io.BytesIO()
    image.save(file, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


class Address(str):
    """Where a server is, and what embeds there."""


@contextmanager
def serving(folder, table=None, **limits):
    """The address of a server of a model; it ends with the block."""
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu"))
    embedder = Embedder(encoder, ServingArguments(**limits), batch_size=8)
    server = create_server(create_app(embedder, "model", table))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            address = Address(f"http://127.0.0.1:{listener.getsockname()[1]}")
            address.embedder = embedder
            yield address
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(model_dir):
    with serving(model_dir, max_batch_size=8, max_bytes=100_000) as address:
        yield address


def connect(address: str, max_retries: int = 0) -> openai.OpenAI:
    client = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=max_retries, http_client=client)


@pytest.fixture
def client(address):
    with connect(address) as client:
        yield client


@pytest.mark.parametrize(
    "family, encoding_format",
    [("lotlip", "float"), ("lotlip", "base64"), ("siglip2_masked", "float"), ("clip", "float")],
)
def test_embeddings_are_those_of_the_library(family, encoding_format, model_dir, family_folders):
    folder = model_dir if family == "lotlip" else family_folders(family)
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu"))
    texts, images = encoder.encode_text(TEXTS, convert_to_tensor=True), embed_images(encoder, IMAGES)
    expected = torch.stack([texts[0], images[0], texts[1], images[1], images[2], texts[2]])
    entries = [TEXTS[0], data_url(IMAGES[0]), TEXTS[1], data_url(IMAGES[1]), data_url(IMAGES[2]), TEXTS[2]]
    with serving(folder) as address, connect(address) as client:
        answer = client.embeddings.create(model="model", input=entries, encoding_format=encoding_format)
    assert answer.model == "model" and [entry.index for entry in answer.data] == list(range(6))
    embeds = [entry.embedding for entry in answer.data]
    if encoding_format == "base64":  # asked for by name, it is not decoded by the client
        embeds = [np.frombuffer(base64.b64decode(embedding), "<f4") for embedding in embeds]
    assert np.abs(np.array(embeds) - expected.numpy()).max() < 1e-6


def test_a_string_its_tokens_and_truncation(client, caplog):
    answer = client.embeddings.with_raw_response.create(model="model", input="a red boat")
    assert answer.headers["x-truncated-texts"] == "0"
    assert answer.parse().usage.model_dump() == {"prompt_tokens": 5, "total_tokens": 5}  # with [CLS] and [SEP]
    assert len(answer.parse().data) == 1 and abs(np.linalg.norm(answer.parse().data[0].embedding) - 1) < 1e-5
    answer = client.embeddings.with_raw_response.create(model="model", input=["red " * 500, "boat"])
    assert answer.headers["x-truncated-texts"] == "1" and answer.parse().usage.prompt_tokens == 126 + 3
    assert "truncated" not in caplog.text  # the header says it
    url = data_url(IMAGES[0])
    for header in ("data:image/png", "\ndata:image/png", "data:", "data: application/octet-stream"):
        entry = url.replace("data:image/png", header)
        assert client.embeddings.create(model="model", input=entry).usage.total_tokens == 0
    assert [model.id for model in client.models.list()] == ["model"]


NO_IMAGE = "data:image/png;base64," + base64.b64encode(b"no image").decode()
CUT_OFF = data_url(IMAGES[0])[:422]  # whole groups of base64


@pytest.mark.parametrize(
    "body, status, message",
    [
        ({"model": None}, 400, "`model`: Input should be a valid string."),
        ({"input": []}, 400, "`input` has 0 entries, a request must have 1 to 8."),
        ({"input": ["a boat"] * 9}, 400, "`input` has 9 entries, a request must have 1 to 8."),
        ({"input": ["a boat", " "]}, 400, "`input[1]` is empty"),
        ({"input": [1, 2]}, 400, "`input` must be a string or a list of strings. Lists of tokens are of OpenAI"),
        ({"dimensions": 8}, 400, "`dimensions` must be 32, as this model's embeddings have"),
        ({"truncate": True}, 400, "`truncate`: Extra inputs are not permitted."),
        ({"model": "gpt"}, 404, "The model `gpt` is not served here, but `model`."),
        ({"input": "a" * 100_001}, 413, "The request has more than 100000 bytes: send less."),
        ({"input": "\n Data:a"}, 400, "`input[0]` begins with `data:`, so it must be an image: `data:image/jpeg"),
        ({"input": "data:image/png;base64,a*c"}, 400, "`input[0]` is no image that can be read: Only base64 data"),
        ({"input": NO_IMAGE}, 400, "`input[0]` is no image that can be read: it is none of JPEG"),
        ({"input": CUT_OFF}, 400, "`input[0]` is no image that can be read: The image is dam"),
        ({"input": data_url(Image.new("1", (101, 100)))}, 413, "`input[0]` has 101 x 100 pixels, the most are 10000"),
        ({"input": "file:///a.png"}, 400, "`input[0]` is an address, and this server fetches none"),
    ],
)
def test_a_mistake_is_told_in_the_form_of_openai(body, status, message, address, monkeypatch):
    monkeypatch.setattr(embedder_module, "MAX_PIXELS", 10_000)
    body = {"model": "model", "input": "a boat", **body}
    answer = httpx.post(f"{address}/v1/embeddings", json=body, trust_env=False)
    error = answer.json()["error"]
    assert answer.status_code == status and error["message"].startswith(message)
    assert error["type"] == "invalid_request_error" and error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "method, path, content, status",
    [
        ("POST", "/v1/embeddings", b"{", 400),
        ("POST", "/v1/embeddings", b"[" * 50_000, 400),
        ("GET", "/v1/embeddings", b"", 405),
        ("POST", "/v1/chat/completions", b"{}", 404),
        ("POST", "/v1/search", b"{}", 404),
    ],
)
def test_what_is_no_request_is_told_too(method, path, content, status, address):
    answer = httpx.request(method, f"{address}{path}", content=content, trust_env=False)
    assert answer.status_code == status and answer.json()["error"]["type"] == "invalid_request_error"


def test_entries_of_several_requests_are_computed_together(model_dir, monkeypatch):
    encoder = load_encoder(str(model_dir), LoadingArguments(device="cpu"))
    texts = [" ".join(["red boat"] * (1 + number % 5)) for number in range(33)]
    expected = encoder.encode_text(texts, convert_to_tensor=True).numpy()
    sizes, gate = [], threading.Event()

    def embed_when_told(batch):
        sizes.append(len(batch.entries))
        assert gate.wait(60)
        return DualEncoder.embed(encoder, batch)

    async def ask(address: str, embedder: Embedder) -> np.ndarray:
        http_client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))
        options = {"base_url": f"{address}/v1", "api_key": "none", "max_retries": 0, "http_client": http_client}
        async with openai.AsyncOpenAI(**options) as client:
            asked = [asyncio.create_task(client.embeddings.create(model="model", input=text)) for text in texts]
            # the first one is being computed, the others gather behind it
            while sum(sizes[:1]) + embedder.queue.qsize() < 33:
                await asyncio.sleep(0.01)
            gate.set()
            return np.array([answer.data[0].embedding for answer in await asyncio.gather(*asked)])

    with serving(model_dir) as address:
        monkeypatch.setattr(address.embedder.encoder, "embed", embed_when_told)
        found = asyncio.run(ask(address, address.embedder))
    assert np.abs(found - expected).max() < 1e-6
    # at most the batch size of this server
    assert sum(sizes) == 33 and max(sizes) == 8 and len(sizes) <= 1 + 32 // 8 + 1


def test_images_of_several_numbers_of_patches_and_one_that_fails_are_computed_together(family_folders):
    encoder = load_encoder(str(family_folders("siglip2")), LoadingArguments(device="cpu"))
    embedder = Embedder(encoder, ServingArguments())
    inputs = [
        dict(encoder.processor.image_processor([image], max_num_patches=number, return_tensors="pt"))
        for image, number in zip(IMAGES, (16, 36, 16))
    ]
    broken = inputs[0] | {"pixel_values": inputs[0]["pixel_values"][..., :-1]}
    waiting = [Batch([name], row, "image") for name, row in zip("abc", inputs)]
    waiting.append(Batch(["broken"], broken, "image"))
    found = dict(embedder.compute(waiting))
    assert found.pop("broken") is None and found.keys() == set("abc")
    for batch in waiting[:3]:
        torch.testing.assert_close(found[batch.entries[0]], encoder.embed(batch)[0], rtol=0, atol=1e-6)


def test_search_in_a_table(model_dir, tmp_path):
    encoder = load_encoder(str(model_dir), LoadingArguments(device="cpu"))
    embeds, several = embed_images(encoder, IMAGES), "a red boat\nthe sea is sand"
    settings = encoder.settings() | {"kinds": ["image"]}
    table = EmbeddingTable.create(tmp_path, embeds.shape[1], settings, {}, dtype="float32")
    table.append([{"key": key, "kind": "image", "embedding": row} for key, row in zip("abc", embeds)])
    with serving(model_dir, table=EmbeddingTable(tmp_path)) as address:

        def ask(**body) -> httpx.Response:
            return httpx.post(f"{address}/v1/search", json={"model": "model", **body}, trust_env=False)

        image, text = ask(input=[data_url(IMAGES[1]), several], k=2).json()["data"]
        assert image["results"][0]["key"] == "b" and image["results"][0]["similarity"] == pytest.approx(1, abs=1e-5)
        query = Searcher(encoder, table).embed(several).embedding  # several sentences are joined
        expected = dict(zip("abc", (embeds @ query).tolist()))
        assert [row["key"] for row in text["results"]] == sorted(expected, key=expected.get, reverse=True)[:2]
        assert all(row["similarity"] == pytest.approx(expected[row["key"]], abs=1e-5) for row in text["results"])
        assert ask(input="a", kind="long").json()["error"]["message"] == (
            "`kind` must be image, as the table has: got long."
        )
        assert ask(input="a", k=0).status_code == 400


def test_no_other_web_site_is_answered(address):
    site, body = "http://example.org", {"model": "model", "input": "a boat"}
    for headers in ({"origin": site}, {"host": "example.org"}, {"sec-fetch-site": "cross-site"}):
        answer = httpx.post(f"{address}/v1/embeddings", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "invalid_request_error", headers
    answer = httpx.post(f"{address}/v1/embeddings", json=body, headers={"origin": address}, trust_env=False)
    assert answer.status_code == 200


def test_a_failure_of_the_model_is_a_500_and_the_next_request_is_answered(address, client, monkeypatch):
    def fail(batch):
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(address.embedder.encoder, "embed", fail)
        with pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(model="model", input=["a boat", "a tree"])
    assert "secret" not in str(caught.value) and caught.value.type == "server_error"
    assert len(client.embeddings.create(model="model", input="a boat").data) == 1


def test_a_busy_server_says_when_to_come_again(model_dir):
    with serving(model_dir) as address:
        address.embedder.max_waiting = 1
        body = {"model": "model", "input": ["a boat", "a tree"]}
        answer = httpx.post(f"{address}/v1/embeddings", json=body, trust_env=False)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["message"].startswith("The server is busy: it has 0 texts and images.")
        with connect(address) as client:
            for _ in range(2):
                assert len(client.embeddings.create(model="model", input="a house").data) == 1
        assert address.embedder.num_waiting == 0


def test_shorter_embeddings_of_a_model_that_was_trained_for_them(model_dir, tmp_path):
    model = LotlipModel.from_pretrained(model_dir)
    model.config.matryoshka_dims = [32, 8]
    model.save_pretrained(tmp_path)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(tmp_path)
    with serving(tmp_path) as address:
        client = connect(address)
        whole, short = (
            torch.tensor(client.embeddings.create(input="a red boat", model="model", **options).data[0].embedding)
            for options in ({}, {"dimensions": 8})
        )
        torch.testing.assert_close(short, torch.nn.functional.normalize(whole[:8], dim=0))
        with pytest.raises(openai.BadRequestError, match="`dimensions` must be 32 or 8"):
            client.embeddings.create(input="a red boat", model="model", dimensions=9)
