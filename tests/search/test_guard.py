"""Visitors of the page, over HTTP: they reach the images of the collection and no other file, within bounds."""

import asyncio
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search import guard, page
from modeling_lotlip.search.arguments import PageArguments, read_logins
from modeling_lotlip.search.handlers import Handlers
from modeling_lotlip.search.index import find_table, open_images
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.utils.addresses import listen
from tests.helpers.images import save_images


SECRET = "the secret of this test"


@contextmanager
def visit(handlers: Handlers, uploads: Path, logins: list[tuple[str, str]] | None = None):
    """The address of the page."""
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        built = page.build_page(handlers)
        try:
            yield page.launch(built, PageArguments(photos=".", port=port, no_browser=True), uploads, logins).rstrip(
                "/"
            )
        finally:
            built.close(verbose=False)


def predict(client: Client, text: str, image: Path | None = None) -> str:
    """What an honest client finds."""
    file = None if image is None else handle_file(image)
    return client.predict(text, file, "", "", "", api_name="/search")


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    """A folder of pictures, in which links lead out of it, beside what nobody may see."""
    folder = tmp_path_factory.mktemp("collection")
    save_images(folder / "photos", [make_scene(5, index).draw() for index in range(6)])
    (folder / "elsewhere").mkdir()
    (folder / "secret.txt").write_text(SECRET)
    make_scene(5, 7).draw().save(folder / "elsewhere" / "private.png")
    (folder / "photos" / "notes.txt").write_text(SECRET)
    (folder / "photos" / ".hidden.png").write_bytes((folder / "photos" / "1.png").read_bytes())
    (folder / "photos" / "text.png").symlink_to(folder / "secret.txt")
    (folder / "photos" / "folder").symlink_to(folder / "elsewhere")
    return folder


@pytest.fixture(scope="module")
def handlers(collection, encoder, tmp_path_factory) -> Handlers:
    table = find_table(collection / "photos", encoder, tmp_path_factory.mktemp("indices"))
    searcher = Searcher(encoder, table, collection / "photos")
    searcher.update()
    return Handlers(searcher, open_images(table), 4)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(handlers, uploads):
    with visit(handlers, uploads) as address:
        yield address


@pytest.fixture(scope="module")
def http(address):
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        yield client


def find_component(http: httpx.Client) -> int:
    """The number of the part of the page that shows results."""
    parts = http.get("/config").json()["components"]
    return next(part["id"] for part in parts if part["props"].get("elem_id") == "results")


def ask(http: httpx.Client, function: str, asked: object) -> httpx.Response:
    """What `page.js` asks."""
    body = {"data": asked, "component_id": find_component(http), "session_hash": "visitor", "fn_name": function}
    return http.post("/gradio_api/component_server", json=body)


def test_no_file_is_reached_by_its_path(http, collection):
    photos = collection / "photos"
    paths = [str(collection / "secret.txt"), str(photos / "notes.txt"), str(photos / "1.png")]
    paths += [f"{photos}/../secret.txt", f"{photos}/text.png", f"{photos}/folder/private.png"]
    paths += [os.path.relpath(collection / "secret.txt"), "setup.py", "/proc/self/environ"]
    secrets = [SECRET.encode(), (photos / "1.png").read_bytes(), Path("setup.py").read_bytes()]
    for path in paths:
        for coded in (path, path.replace("..", "%2e%2e").replace("/", "%2f")):
            for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/"):
                # as a hostile client sends it, not resolved by the library
                answer = http.get(httpx.URL(str(http.base_url), raw_path=f"/{route}{coded}".encode()))
                assert answer.status_code in (403, 404), (route, coded)
                assert not any(secret in answer.content for secret in secrets), (route, coded)


def test_the_collection_is_reached_by_names_of_the_index_alone(http, collection):
    for name in ("1.png", "5.png"):
        assert ask(http, "enlarge", {"name": name}).json()["source"].startswith("data:image/")
    names = ["../secret.txt", str(collection / "secret.txt"), "folder/private.png", "notes.txt", ".hidden.png", ""]
    for name in names:
        for function in ("enlarge", "heat_map"):
            answer = ask(http, function, {"name": name, "sentence": "a boat"})
            assert answer.status_code == 200 and answer.json().keys() == {"message"}, (function, name)
            assert "not in the collection" in answer.json()["message"], (function, name)
    for asked in (None, [], {}, {"name": 3}, {"name": ["1.png"]}, "1.png"):
        assert ask(http, "enlarge", asked).json() == {"message": "The request has no name."}
    assert (
        ask(http, "heat_map", {"name": "1.png", "sentence": "a " * 10_001}).json()["message"].startswith("This text")
    )
    assert ask(http, "read", {"name": "1.png"}).status_code == 404  # of the searcher, but not for the page


def file_data(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(http: httpx.Client, data: list) -> str:
    """The events of a search, asked for as no honest client would."""
    event = http.post("/gradio_api/call/search", json={"data": [*data, "", "", ""]}).json()["event_id"]
    return http.get(f"/gradio_api/call/search/{event}").text


def test_no_file_is_searched_with_but_uploaded_ones(http, collection):
    picture, secret = collection / "photos" / "1.png", collection / "secret.txt"
    uploaded = http.post("/gradio_api/upload", files={"files": ("../../1.png", picture.read_bytes())}).json()[0]
    for path in (picture, secret, "/etc/passwd", f"{Path(uploaded).parent}/../../../{secret}"):
        for data in (["a boat", file_data(str(path))], ["", {"path": str(path)}], [file_data(str(path)), None]):
            events = call(http, data)
            assert "event: error" in events and "card" not in events and SECRET not in events
    found = call(http, ["", file_data(uploaded)])
    assert "event: complete" in found and "1.000" in found
    assert not uploaded.startswith(str(collection)) and len(list((collection / "photos").iterdir())) == 10


def test_requests_have_a_size(http):
    text = json.dumps({"data": ["a" * 2**20, None], "fn_index": 0, "session_hash": "visitor"})
    assert http.post("/gradio_api/queue/join", content=text).status_code == 413
    assert http.post("/gradio_api/queue/join", content=iter([text.encode()])).status_code == 411
    for num_bytes, status in ((guard.MAX_REQUEST + 1, 200), (guard.MAX_UPLOAD + 1, 413)):
        files = {"files": ("a.png", bytes(num_bytes), "image/png")}
        assert http.post("/gradio_api/upload", files=files).status_code == status


def test_uploads_have_a_size_in_sum(http, uploads, monkeypatch):
    def send(color: int) -> Path:
        image = Image.effect_noise((100, 100), color)
        file = io.BytesIO()
        image.save(file, "PNG")
        answer = http.post("/gradio_api/upload", files={"files": ("a.png", file.getvalue(), "image/png")})
        assert answer.status_code == 200
        return Path(answer.json()[0])

    first, second = send(20), send(40)
    assert uploads in first.parents and first.exists() and second.exists()
    monkeypatch.setattr(guard, "MAX_UPLOADS", second.stat().st_size + 12_000)
    third = send(60)
    assert not first.exists() and second.exists() and third.exists()
    monkeypatch.setattr(guard, "MAX_UPLOADS", 100)
    answer = http.post("/gradio_api/upload", files={"files": ("a.png", bytes(200), "image/png")})
    assert answer.status_code == 503 and third.exists()


def test_no_other_web_site_is_answered(http):
    port = http.base_url.port
    for headers in (
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": f"http://localhost:{port + 1}", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},  # an image or a script
        {"host": f"example.org:{port}"},  # a name that leads to 127.0.0.1
        {"host": f"example.org:{port}", "origin": f"http://example.org:{port}", "sec-fetch-site": "same-origin"},
        {"origin": "http://example.org", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a form
        {"host": ""},
    ):
        answers = [http.get("/config", headers=headers), http.get("/", headers=headers)]
        answers.append(http.post("/gradio_api/call/search", json={"data": []}, headers=headers))
        assert {answer.status_code for answer in answers} == {403}, headers
    for headers in (
        {"origin": f"http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"},
        {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"},
        {"host": f"[::1]:{port}"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link
    ):
        assert http.get("/config", headers=headers).status_code == 200, headers


def test_an_address_has_to_wait_after_a_wrong_login(monkeypatch, tmp_path):
    events = []

    async def app(scope, receive, send):
        events.append(scope["client"][0])
        await send({"type": "http.response.start", "status": scope["status"], "headers": []})

    async def rest(seconds):
        events.append(seconds)
        for _ in range(9):
            await asyncio.sleep(0)

    async def log_in(*statuses: int, addresses: str) -> None:
        async def send(message):
            pass

        server = guard.Guard(app, tmp_path)
        scope = {"type": "http", "path": "/login", "headers": [], "method": "POST"}
        scopes = [scope | {"status": status, "client": (address, 1)} for status, address in zip(statuses, addresses)]
        await asyncio.gather(*(server(scope, None, send) for scope in scopes))

    monkeypatch.setattr(guard, "sleep", rest)
    asyncio.run(log_in(400, 400, 200, addresses="aaa"))
    assert events == ["a", 1.0, "a", 1.0, "a"]
    events.clear()
    asyncio.run(log_in(400, 400, addresses="ab"))
    assert events == ["a", 1.0, "b", 1.0] or events == ["a", "b", 1.0, 1.0]


def test_what_is_wrong_with_an_uploaded_picture_is_told(address, tmp_path):
    bomb, postscript = io.BytesIO(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    client = Client(address, verbose=False)
    for content, message in ((bomb.getvalue(), "400000000 pixels"), (postscript, "none of JPEG, PNG")):
        (tmp_path / "a.png").write_bytes(content)
        found = predict(client, "", tmp_path / "a.png")
        assert "not an image that can be read" in found and message in found, found
    assert "This text has 20,001 characters" in predict(client, "a" * 20_001)


def test_visitors_at_once_all_get_their_own_answer(address, collection, handlers):
    def ask_page(number: int) -> tuple[str, str]:
        client = Client(address, verbose=False)
        alone = predict(client, "", collection / "photos" / f"{number}.png")
        return alone, predict(client, f"A red boat. {'sea ' * number}")

    with ThreadPoolExecutor(6) as executor:
        answers = list(executor.map(ask_page, range(6)))
    for number, (alone, found) in enumerate(answers):
        assert f'data-name="{number}.png"' in alone and "1.000" in alone
        results = handlers.searcher.search(handlers.searcher.embed(f"A red boat. {'sea ' * number}"), 4)
        assert all(f'data-name="{result.key}"' in found for result in results)


def test_only_users_are_let_in(handlers, tmp_path):
    logins = [("anna", "a long: password"), ("ben", "another one")]
    with visit(handlers, tmp_path, logins) as address, httpx.Client(base_url=address, trust_env=False) as http:
        assert "collection" not in http.get("/").text
        for path in ("config", "gradio_api/file=/etc/passwd", "gradio_api/queue/data?session_hash=a"):
            assert http.get(f"/{path}").status_code == 401, path
        body = {"data": ["a boat", None], "fn_index": 0, "session_hash": "a"}
        for path in ("queue/join", "call/search", "component_server", "upload"):
            assert http.post(f"/gradio_api/{path}", json=body).status_code == 401, path
        answer = http.post("/login", data={"username": "anna", "password": "another one"})
        assert answer.status_code == 400
        answer = http.post("/login", data={"username": "anna", "password": "a long: password"})
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2 and all("SameSite=lax" in cookie and "HttpOnly" in cookie for cookie in cookies)
        client = Client(address, auth=("anna", "a long: password"), verbose=False)
        assert 'class="card"' in predict(client, "a boat")


@pytest.mark.parametrize(
    "content, mode, message",
    [
        ("anna:password", 0o620, "can be read by others: `chmod 600"),
        ("anna password", 0o600, "line 1: write USER:PASSWORD"),
        ("anna:password\n\nben:1234567", 0o600, "line 3: write USER:PASSWORD, each user once, with at least 8 char"),
        ("anna:password\nanna:password2", 0o600, "line 2: write USER:PASSWORD, each user once"),
        ("\n", 0o600, "names no user"),
    ],
)
def test_a_file_of_users_that_cannot_be_used_is_told(content, mode, message, tmp_path):
    file = tmp_path / "users"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ValueError, match=message) as caught:
        read_logins(file)
    assert "1234567" not in str(caught.value) and "password2" not in str(caught.value)
    file.write_text("anna: a password:1\n")
    file.chmod(0o600)
    assert read_logins(file) == [("anna", " a password:1")]
