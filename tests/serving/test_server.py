"""Embeddings by OpenAI's own client, on 127.0.0.1: equal to the library's, many clients at once, mistakes as 4xx."""

import asyncio
import base64
import io
import pkgutil
import random
import threading
from concurrent.futures import ThreadPoolExecutor
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
from modeling_lotlip.serving import finder
from modeling_lotlip.serving.arguments import ServingArguments
from modeling_lotlip.serving.embedder import MAX_CHARACTERS, Embedder, RequestError, is_image
from modeling_lotlip.serving.server import create_app, create_server
from modeling_lotlip.table.memory import keep_in_memory
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.vector_index import search as search_table
from modeling_lotlip.utils.addresses import listen
from tests.conftest import WORDS
from tests.helpers.embeddings import embed_images


TEXTS = ["a red boat", "a photo of the sea and the ground is sand", "a blue tree. the house is green."]
IMAGES = [make_scene(7, index).draw() for index in range(3)]


def data_url(image: Image.Image, format: str = "PNG", **options) -> str:
    file = io.BytesIO()
    image.save(file, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


class Address(str):
    """Where a server is, what embeds there, and the thread that answers."""


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
            address.thread = thread
            yield address
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(model_dir):
    with serving(model_dir, max_batch_size=8, max_bytes=100_000, max_pixels=30_000) as address:
        yield address


@pytest.mark.parametrize("name", ["embedder.check_embeds", "server.encode"])
def test_no_other_request_waits_while_embeddings_are_checked_or_written(address, monkeypatch, name):
    threads = []
    function = pkgutil.resolve_name(f"modeling_lotlip.serving.{name}")

    def note(*arguments):
        threads.append(threading.current_thread())
        return function(*arguments)

    monkeypatch.setattr(f"modeling_lotlip.serving.{name}", note)
    connect(address).embeddings.create(model="model", input="a boat", encoding_format="float")
    assert len(threads) == 1
    assert threads[0] is not address.thread


def connect(address: str, max_retries: int = 0) -> openai.OpenAI:
    client = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=max_retries, http_client=client)


@pytest.fixture
def client(address):
    with connect(address) as client:
        yield client


def post(address: str, body: object, **headers: str) -> httpx.Response:
    return httpx.post(f"{address}/v1/embeddings", json=body, headers=headers, trust_env=False)


@pytest.mark.parametrize(
    "family, encoding_format",
    [("lotlip", "float"), ("lotlip", "base64"), ("siglip2_masked", "float"), ("clip", "float")],
)
def test_embeddings_are_those_of_the_library(family, encoding_format, model_dir, family_folders):
    folder = model_dir
    if family != "lotlip":
        folder = family_folders(family)
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu"))
    texts = encoder.encode_text(TEXTS, convert_to_tensor=True)
    images = embed_images(encoder, IMAGES)
    expected = torch.stack([texts[0], images[0], texts[1], images[1], images[2], texts[2]])
    entries = [TEXTS[0], data_url(IMAGES[0]), TEXTS[1], data_url(IMAGES[1]), data_url(IMAGES[2]), TEXTS[2]]
    with serving(folder) as address, connect(address) as client:
        answer = client.embeddings.create(model="model", input=entries, encoding_format=encoding_format)
    assert answer.model == "model"
    assert [entry.index for entry in answer.data] == list(range(6))
    embeds = [entry.embedding for entry in answer.data]
    if encoding_format == "base64":  # asked for by name, it is not decoded by the client
        embeds = [np.frombuffer(base64.b64decode(embedding), "<f4") for embedding in embeds]
    assert np.abs(np.array(embeds) - expected.numpy()).max() < 1e-6


def test_a_large_jpeg_has_the_embedding_that_the_library_gives(model_dir, tmp_path):
    IMAGES[0].resize((1200, 900)).save(tmp_path / "large.jpg")
    content = (tmp_path / "large.jpg").read_bytes()
    expected = load_encoder(str(model_dir), LoadingArguments(device="cpu")).encode_image(content)
    with serving(model_dir) as address, connect(address) as client:
        entry = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        (answer,) = client.embeddings.create(model="model", input=entry).data
    np.testing.assert_allclose(answer.embedding, expected, rtol=0, atol=1e-6)


def test_a_string_is_one_entry_whose_tokens_are_counted(client):
    answer = client.embeddings.with_raw_response.create(model="model", input="a red boat")
    assert answer.headers["x-truncated-texts"] == "0"
    parsed = answer.parse()
    assert parsed.usage.model_dump() == {"prompt_tokens": 5, "total_tokens": 5}  # with [CLS] and [SEP]
    assert len(parsed.data) == 1
    assert np.linalg.norm(parsed.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_padding_that_a_model_reads_is_not_counted(family_folders):
    folder = family_folders("siglip")
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu"))
    texts = ["a red boat", "boat " * 100]
    tokenized = Embedder(encoder, ServingArguments()).read_texts(texts, splitter=None)
    num_short = len(encoder.processor.tokenizer(texts[0])["input_ids"])
    assert tokenized.num_tokens == num_short + encoder.max_length
    assert num_short < encoder.max_length


def test_a_text_of_which_the_beginning_alone_is_read_is_counted_as_truncated(client, monkeypatch):
    monkeypatch.setattr(embedder_module, "MAX_CHARACTERS", 6)
    answer = client.embeddings.with_raw_response.create(model="model", input=["a red boat", "a red", "a  red"])
    assert answer.headers["x-truncated-texts"] == "1"


def test_texts_of_unknown_words_are_counted_in_a_header_and_said_once_in_the_log(model_dir, caplog):
    with serving(model_dir) as address:
        body = {"model": "model", "input": ["Ένα καράβι", "a boat", "καράβι"]}
        answers = [post(address, body) for _ in range(2)]
    assert [answer.headers["x-unknown-texts"] for answer in answers] == ["2", "2"]
    assert caplog.text.count(f"2 of 3 texts hold only words that the tokenizer of {model_dir} ") == 1


def test_truncated_texts_are_counted_in_a_header(client, caplog):
    answer = client.embeddings.with_raw_response.create(model="model", input=["red " * 500, "boat"])
    assert answer.headers["x-truncated-texts"] == "1"
    assert answer.parse().usage.prompt_tokens == 126 + 3
    assert "truncated" not in caplog.text


def test_a_text_with_more_characters_than_are_tokenized_counts_as_truncated(model_dir):
    encoder = load_encoder(str(model_dir), LoadingArguments(device="cpu"))
    text = "boat" + " " * MAX_CHARACTERS + "house"
    tokenized = Embedder(encoder, ServingArguments()).read_texts([text, "boat"], splitter=None)
    assert tokenized.num_truncated == 1


@pytest.mark.parametrize("header", ["data:image/png", "\ndata:image/png", "data:", "data: application/octet-stream"])
def test_a_data_url_is_an_image_whatever_its_type(header, client):
    entry = data_url(IMAGES[0]).replace("data:image/png", header)
    answer = client.embeddings.create(model="model", input=entry)
    assert answer.usage.total_tokens == 0


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["model"]


NO_IMAGE = "data:image/png;base64," + base64.b64encode(b"no image").decode()
CUT_OFF = data_url(IMAGES[0])[:422]  # whole groups of base64
TOO_LARGE = data_url(Image.new("1", (101, 100)))
BARE_IMAGE = "is an image that does not begin as a data URL: send `data:image/jpeg;base64,...`."
# an entry, the status, and what is said of it
BAD_ENTRIES = [
    (" ", 400, "is empty"),
    (3, 400, "must be a string. Lists of tokens are of OpenAI"),
    (None, 400, "must be a string."),
    ([1, 2], 400, "must be a string."),
    ("\n Data:a", 400, "begins with `data:`, so it must be an image: `data:image/jpeg"),
    ("data:image/png;base64,a*c", 400, "is no image that can be read: Only base64 data"),
    (NO_IMAGE, 400, "is no image that can be read: it is none of JPEG"),
    (CUT_OFF, 400, "is no image that can be read: The image is dam"),
    (TOO_LARGE, 413, "has 101 x 100 pixels, the max is 10000"),
    ("file:///a.png", 400, "is an address, and this server fetches none"),
    (data_url(IMAGES[0]).partition(",")[2], 400, BARE_IMAGE),
    (data_url(IMAGES[0])[len("data:") :], 400, BARE_IMAGE),
]


@pytest.mark.parametrize("entry, status, message", BAD_ENTRIES)
@pytest.mark.parametrize("index", [0, 2])
def test_a_bad_entry_among_good_ones_is_named(entry, status, message, index, address, monkeypatch):
    monkeypatch.setattr(embedder_module, "MAX_PIXELS", 10_000)
    entries = ["a boat", data_url(IMAGES[0]), "a red house"]
    entries.insert(index, entry)
    answer = post(address, {"model": "model", "input": entries})
    error = answer.json()["error"]
    assert answer.status_code == status
    assert error["message"].startswith(f"`input[{index}]` {message}")
    assert error["param"] == "input"


def test_a_bad_request_among_good_ones_changes_nothing_for_them(address):
    """All at once: the good ones have the embeddings that they have alone."""
    rng = random.Random(0)
    good = [[rng.choice(TEXTS), data_url(rng.choice(IMAGES))] for _ in range(12)]
    bodies = [{"model": "model", "input": entries} for entries in good]
    expected = [post(address, body).json()["data"] for body in bodies]
    bad = [{"model": "model", "input": ["a boat", entry]} for entry, _, _ in BAD_ENTRIES if entry != TOO_LARGE]
    mixed = bodies + bad
    rng.shuffle(mixed)
    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(lambda body: post(address, body), mixed))
    for body, answer in zip(mixed, answers):
        if body in bad:
            assert answer.status_code == 400
        else:
            found = np.array([entry["embedding"] for entry in answer.json()["data"]])
            alone = np.array([entry["embedding"] for entry in expected[bodies.index(body)]])
            assert np.abs(found - alone).max() < 1e-6


@pytest.mark.parametrize(
    "encode",
    [
        base64.b64encode,
        base64.urlsafe_b64encode,
        base64.encodebytes,  # in lines
        lambda content: base64.b64encode(content).rstrip(b"="),
    ],
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "ICO", "JPEG2000"])
def test_an_image_in_base64_alone_is_refused_in_every_format(image_format, encode):
    file = io.BytesIO()
    IMAGES[0].save(file, image_format)
    with pytest.raises(RequestError, match="is an image that does not begin as a data URL"):
        is_image(encode(file.getvalue()).decode(), 0)


@pytest.mark.parametrize(
    "around",
    ["b'{}'", '"{}"', "base64,{}", "image/png;base64,{}", "'data:image/png;base64,{}'", '{{"image": "{}"}}', "<{}>"],
)
def test_an_image_in_base64_is_refused_whatever_stands_around_it(around):
    entry = around.format(data_url(IMAGES[0]).partition(",")[2])
    with pytest.raises(RequestError, match="is an image that does not begin as a data URL"):
        is_image(entry, 0)


def test_an_image_in_hexadecimal_digits_is_refused():
    content = base64.b64decode(data_url(IMAGES[0]).partition(",")[2])
    with pytest.raises(RequestError, match="is an image that does not begin as a data URL"):
        is_image(content.hex(), 0)


def test_a_long_text_may_quote_an_image_in_base64():
    image = data_url(IMAGES[0])
    text = f'<img src="{image}"> ' + "A red boat on the sea. " * len(image)
    assert is_image(text, 0) is False


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200,
        "iVBORw0KGgo",
        "Qk" + "a" * 100,
        "/9j/ is how JPEGs begin in base64",
        "a red boat at sea " * 9,
        "=" * 80,
    ],
)
def test_a_text_that_looks_like_base64_is_a_text(text):
    assert not is_image(text, 0)


@pytest.mark.parametrize("num_images, status", [(2, 200), (3, 413)])
def test_the_images_of_a_request_have_a_number_of_pixels_in_sum(num_images, status, address):
    url = data_url(Image.new("1", (120, 100)))
    answer = post(address, {"model": "model", "input": [url] * num_images})
    assert answer.status_code == status


def test_pixels_are_counted_before_an_image_is_decoded(model_dir, monkeypatch):
    """256 files of 6 kB with 49 million pixels each took half an hour."""
    monkeypatch.setattr(embedder_module, "read_image", None)
    url = data_url(Image.new("1", (7000, 7000)))
    with serving(model_dir) as address:
        answer = post(address, {"model": "model", "input": [url] * 256})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == (
        "The images of the request have 12544000000 pixels, the max is 100000000: send fewer in a request, or "
        "smaller ones."
    )


@pytest.mark.parametrize(
    "body, status, message",
    [
        ({"model": None}, 400, "`model`: Input should be a valid string."),
        ({"input": []}, 400, "`input` has 0 entries, a request must have 1 to 8."),
        ({"input": ["a boat"] * 9}, 400, "`input` has 9 entries, a request must have 1 to 8."),
        ({"input": {"text": "a boat"}}, 400, "`input` must be a string or a list of strings."),
        ({"dimensions": 8}, 400, "`dimensions` must be 32, as this model's embeddings have, or left out: got 8."),
        ({"truncate": True}, 400, "`truncate`: Extra inputs are not permitted."),
        ({"model": "gpt"}, 404, "The model `gpt` is not served here, but `model`."),
        ({"input": "a" * 100_001}, 413, "The request has more than 100000 bytes: send less."),
    ],
)
def test_a_mistake_is_said_in_the_form_of_openai(body, status, message, address):
    answer = post(address, {"model": "model", "input": "a boat", **body})
    error = answer.json()["error"]
    assert answer.status_code == status
    assert error["message"] == message
    assert error["type"] == "invalid_request_error"
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "method, path, content, status",
    [
        ("POST", "/v1/embeddings", b"{", 400),
        ("POST", "/v1/embeddings", b"[" * 50_000, 400),
        ("POST", "/v1/embeddings", b'{"model": "model", "input": "\\ud800"}', 400),
        ("POST", "/v1/embeddings", b'{"model": "model"}', 400),
        ("GET", "/v1/embeddings", b"", 405),
        ("POST", "/v1/chat/completions", b"{}", 404),
        ("POST", "/v1/search", b"{}", 404),
    ],
)
def test_what_is_no_request_is_refused_in_that_form_too(method, path, content, status, address):
    answer = httpx.request(method, f"{address}{path}", content=content, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_entries_of_several_requests_are_computed_together(model_dir, monkeypatch):
    encoder = load_encoder(str(model_dir), LoadingArguments(device="cpu"))
    texts = [" ".join(["red boat"] * (1 + number % 5)) for number in range(33)]
    expected = encoder.encode_text(texts)
    sizes = []
    gate = threading.Event()

    def embed_when_told(batch):
        sizes.append(len(batch.entries))
        gate.wait(60)
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
    assert sum(sizes) == 33
    assert max(sizes) == 8  # the batch size of this server
    assert len(sizes) <= 1 + 32 // 8 + 1


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
    of_broken = found.pop("broken")
    assert of_broken is None
    assert found.keys() == set("abc")
    for batch in waiting[:3]:
        torch.testing.assert_close(found[batch.entries[0]], encoder.embed(batch)[0], rtol=0, atol=1e-6)


@pytest.fixture
def image_embeds(encoder):
    return embed_images(encoder, IMAGES)


@pytest.fixture
def search(model_dir, encoder, image_embeds, tmp_path):
    """Asks a server for what is nearest in a table of the images `a`, `b` and `c`."""
    settings = encoder.settings() | {"kinds": ["image"]}
    table = EmbeddingTable.create(tmp_path, image_embeds.shape[1], settings, {}, dtype="float32")
    table.append([{"key": key, "kind": "image", "embedding": row} for key, row in zip("abc", image_embeds)])
    with serving(model_dir, table=EmbeddingTable(tmp_path)) as address:

        def ask(**body) -> httpx.Response:
            return httpx.post(f"{address}/v1/search", json={"model": "model", **body}, trust_env=False)

        yield ask


def test_an_image_is_searched_in_a_table(search):
    (answer,) = search(input=[data_url(IMAGES[1])], k=2).json()["data"]
    assert len(answer["results"]) == 2
    assert answer["results"][0]["key"] == "b"
    assert answer["results"][0]["similarity"] == pytest.approx(1, abs=1e-5)


def test_a_text_is_searched_in_a_table_as_by_the_command(search, encoder, image_embeds, tmp_path):
    text = "a red boat\nthe sea is sand"  # several sentences are joined
    (answer,) = search(input=[text], k=2).json()["data"]
    query = Searcher(encoder, EmbeddingTable(tmp_path)).embed(text).embedding
    expected = dict(zip("abc", (image_embeds @ query).tolist()))
    found = {row["key"]: row["similarity"] for row in answer["results"]}
    assert list(found) == sorted(expected, key=expected.get, reverse=True)[:2]
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-5)


def test_searches_at_once_get_their_own_answers(model_dir, encoder, image_embeds, tmp_path):
    """From a table in memory, with several numbers of texts and of results."""
    settings = encoder.settings() | {"kinds": ["image"]}
    table = EmbeddingTable.create(tmp_path, image_embeds.shape[1], settings, {}, dtype="float32")
    table.append([{"key": key, "kind": "image", "embedding": row} for key, row in zip("abc", image_embeds)])
    keep_in_memory(table)
    table.memory.read("image")

    def ask(number: int) -> list[dict]:
        texts = WORDS[number : number + 1 + number % 3]
        body = {"model": "model", "input": texts, "k": 1 + number % 2}
        return httpx.post(f"{address}/v1/search", json=body, trust_env=False, timeout=60).json()["data"]

    with serving(model_dir, table=table) as address, ThreadPoolExecutor(8) as executor:
        for number, answers in enumerate(executor.map(ask, range(8))):
            queries = encoder.encode_text(WORDS[number : number + 1 + number % 3], convert_to_tensor=True)
            expected = [search_table(table, query, 1 + number % 2).keys for query in queries]
            assert [[row["key"] for row in answer["results"]] for answer in answers] == expected


def test_a_search_that_fails_is_a_500_and_the_next_one_is_answered(search, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(finder, "search_many", None)
        assert search(input="a").status_code == 500
    assert search(input="a").status_code == 200


def test_what_a_table_has_not_is_not_searched_for(search):
    message = search(input="a", kind="long").json()["error"]["message"]
    assert message == "`kind` must be image, as the table has: got long."
    assert search(input="a", k=0).status_code == 400


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"origin": "http://example.org"}, 403),
        ({"host": "example.org"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "["}, 400),
        ({"origin": "http://["}, 400),
    ],
)
def test_no_other_web_site_is_answered(headers, status, address):
    answer = post(address, {"model": "model", "input": "a boat"}, **headers)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_page_of_the_same_address_is_answered(address):
    assert post(address, {"model": "model", "input": "a boat"}, origin=address).status_code == 200


def test_a_failure_of_the_model_is_a_500_that_names_the_entry_and_the_next_request_is_answered(
    address, client, monkeypatch
):
    def fail(inputs):
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(address.embedder.encoder, "embed_images", fail)
        with pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(model="model", input=["a boat", data_url(IMAGES[0]), "a tree"])
    assert "The model failed at `input[1]`" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.type == "server_error"
    assert len(client.embeddings.create(model="model", input="a boat").data) == 1


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_an_embedding_that_is_not_finite_is_no_answer(encoding_format, address, client, monkeypatch):
    def overflow(inputs):
        return torch.full((len(inputs["pixel_values"]), address.embedder.encoder.dim), torch.inf)

    monkeypatch.setattr(address.embedder.encoder, "embed_images", overflow)
    entries = ["a boat", data_url(IMAGES[0])]
    with pytest.raises(openai.InternalServerError, match=r"no finite embedding of `input\[1\]`"):
        client.embeddings.create(model="model", input=entries, encoding_format=encoding_format)


def test_a_busy_server_says_when_to_come_again(model_dir):
    with serving(model_dir) as address:
        address.embedder.max_waiting = 1
        answer = post(address, {"model": "model", "input": ["a boat", "a tree"]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["message"].startswith("The server is busy: it has 0 texts and images.")
        for _ in range(2):
            assert post(address, {"model": "model", "input": "a house"}).status_code == 200
        assert address.embedder.num_waiting == 0


@pytest.fixture
def matryoshka_client(model_dir, tmp_path):
    """A client of a model that was trained for shorter embeddings."""
    model = LotlipModel.from_pretrained(model_dir)
    model.config.matryoshka_dims = [32, 8]
    model.save_pretrained(tmp_path)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(tmp_path)
    with serving(tmp_path) as address, connect(address) as client:
        yield client


def test_shorter_embeddings_of_a_model_that_was_trained_for_them(matryoshka_client):
    def embed(**options) -> torch.Tensor:
        answer = matryoshka_client.embeddings.create(input="a red boat", model="model", **options)
        return torch.tensor(answer.data[0].embedding)

    short = embed(dimensions=8)
    torch.testing.assert_close(short, torch.nn.functional.normalize(embed()[:8], dim=0))


def test_other_dimensions_are_refused(matryoshka_client):
    with pytest.raises(openai.BadRequestError, match="`dimensions` must be 32 or 8"):
        matryoshka_client.embeddings.create(input="a red boat", model="model", dimensions=9)
