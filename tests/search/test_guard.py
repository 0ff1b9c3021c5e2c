"""Visitors of the page, over HTTP: they reach the images of the collection and no other file, within bounds."""

import asyncio
import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from starlette.responses import PlainTextResponse

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
            arguments = PageArguments(photos=".", port=port, no_browser=True)
            yield page.launch(built, arguments, uploads, logins).rstrip("/")
        finally:
            built.close(verbose=False)


def predict(client: Client, text: str, image: Path | None = None) -> str:
    """What an honest client finds."""
    file = None
    if image is not None:
        file = handle_file(image)
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


def list_paths(collection: Path) -> list[str]:
    """Ways to files that nobody may see, and to one that may be seen by its name alone."""
    photos = collection / "photos"
    return [
        str(collection / "secret.txt"),
        str(photos / "notes.txt"),
        str(photos / "1.png"),
        f"{photos}/../secret.txt",
        f"{photos}/text.png",
        f"{photos}/folder/private.png",
        os.path.relpath(collection / "secret.txt"),
        "setup.py",
        "/proc/self/environ",
    ]


@pytest.mark.parametrize("route", ["gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/"])
def test_no_file_is_reached_by_its_path(route, http, collection):
    secrets = [SECRET.encode(), (collection / "photos" / "1.png").read_bytes(), Path("setup.py").read_bytes()]
    for path in list_paths(collection):
        for coded in (path, path.replace("..", "%2e%2e").replace("/", "%2f")):
            # as a hostile client sends it, not resolved by the library
            answer = http.get(httpx.URL(str(http.base_url), raw_path=f"/{route}{coded}".encode()))
            assert answer.status_code in (403, 404), coded
            assert not any(secret in answer.content for secret in secrets), coded


@pytest.mark.parametrize("name", ["1.png", "5.png"])
def test_the_collection_is_reached_by_names_of_the_index(name, http):
    answer = ask(http, "enlarge", {"name": name})
    assert answer.json()["source"].startswith("data:image/")


@pytest.mark.parametrize("function", ["enlarge", "heat_map"])
@pytest.mark.parametrize("name", ["../secret.txt", "folder/private.png", "notes.txt", ".hidden.png", "", None])
def test_no_image_is_reached_by_another_name(name, function, http, collection):
    if name is None:
        name = str(collection / "secret.txt")
    answer = ask(http, function, {"name": name, "sentence": "a boat"})
    assert answer.status_code == 200
    assert answer.json().keys() == {"message"}
    assert "not in the collection" in answer.json()["message"]


@pytest.mark.parametrize("asked", [None, [], {}, {"name": 3}, {"name": ["1.png"]}, "1.png"])
def test_a_question_without_a_name_is_refused(asked, http):
    assert ask(http, "enlarge", asked).json() == {"message": "The request has no name."}


def test_a_sentence_has_a_length(http):
    answer = ask(http, "heat_map", {"name": "1.png", "sentence": "a " * 10_001})
    assert answer.json()["message"].startswith("This text has 20,002 characters")


def test_only_functions_of_the_page_are_called(http):
    assert ask(http, "read", {"name": "1.png"}).status_code == 404  # of the searcher, but not for the page


def file_data(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(http: httpx.Client, data: list) -> httpx.Response:
    """Asks for a search as no honest client would; the answer has an id, or says why there is none."""
    return http.post("/gradio_api/call/search", json={"data": [*data, "", "", ""]})


def read_events(http: httpx.Client, answer: httpx.Response) -> str:
    return http.get(f"/gradio_api/call/search/{answer.json()['event_id']}").text


def upload_file(http: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return http.post("/gradio_api/upload", files={"files": (name, content, "image/png")})


def test_an_uploaded_image_is_searched_with(http, collection, uploads):
    files_before = sorted((collection / "photos").iterdir())
    picture = collection / "photos" / "1.png"
    uploaded = upload_file(http, "../../1.png", picture.read_bytes()).json()[0]
    assert uploads in Path(uploaded).parents
    events = read_events(http, call(http, ["", file_data(uploaded)]))
    assert "event: complete" in events
    assert "1.000" in events
    assert sorted((collection / "photos").iterdir()) == files_before


def test_no_other_file_is_searched_with(http, collection, uploads):
    for path in [*list_paths(collection), f"{uploads}/a/../../{collection.name}/secret.txt"]:
        for data in (["a boat", file_data(path)], ["", {"path": path}], [file_data(path), None]):
            answer = call(http, data)
            assert answer.status_code == 403, data
            assert "Upload the image" in answer.json()["detail"]


def test_nothing_is_fetched_for_a_visitor(http, monkeypatch):
    """Gradio fetches what the path of a file names, and answers with it at `file=`, for all visitors."""
    asked = []

    async def note_address(host: str) -> str:
        asked.append(host)
        raise ValueError("no network in tests")

    monkeypatch.setattr("safehttpx.async_validate_url", note_address)
    url = "http://example.org/a.png"
    statuses = [call(http, data).status_code for data in (["", file_data(url)], ["", {"path": url}])]
    for route in ("gradio_api/file=", "gradio_api/file/", "gradio_api/proxy="):
        for coded in (url, url.replace("/", "%2f"), url.replace("h", "%68")):
            answer = http.get(httpx.URL(str(http.base_url), raw_path=f"/{route}{coded}".encode()))
            statuses.append(answer.status_code)
    assert set(statuses) == {403}
    assert asked == []


def test_no_searches_of_visitors_are_kept(http):
    assert http.get("/gradio_api/runs").status_code == 404
    assert http.get("/gradio_api/run-history/records").status_code == 404
    assert http.get("/config").json()["run_history"] is False


@pytest.fixture
def ask_guard(tmp_path):
    """Sends a request to a server behind a guard of `tmp_path`, which answers with the path and the body it gets."""

    async def echo(scope, receive, send):
        message = await receive()
        answer = PlainTextResponse(f"{scope['path']} {message.get('body', b'').decode()}")
        await answer(scope, receive, send)

    def send_request(path: str, **options) -> httpx.Response:
        async def post() -> httpx.Response:
            transport = httpx.ASGITransport(guard.Guard(echo, tmp_path))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(path, **options)

        return asyncio.run(post())

    return send_request


@pytest.mark.parametrize(
    "content",
    [
        '{"path": "%s/a.png"}',
        '{"data": [1, {"path": "%s/a/b.png", "url": "http://127.0.0.1/file=a.png"}, {"name": "/etc/passwd"}]}',
        '["/etc/passwd"]',
        "null",
    ],
)
def test_a_request_that_names_uploads_alone_is_passed_on_unchanged(content, ask_guard, tmp_path):
    content = content.replace("%s", str(tmp_path.resolve()))
    answer = ask_guard("/gradio_api/queue/join", content=content)
    assert answer.text == f"/gradio_api/queue/join {content}"


@pytest.mark.parametrize(
    "content",
    [
        '{"path": "http://example.org/a.png"}',
        '{"path": "%s/../a.png"}',
        '{"path": "%s/link"}',
        '{"path": "%s/a\\u0000b.png"}',
        '{"path": "//example.org/a.png"}',
        '{"path": null}',
        '{"path": {"path": "%s/a.png"}}',
        '{"p\\u0061th": "/etc/passwd"}',
        '{"path": "/etc/passwd", "path": "%s/a.png"}',
        '{"data": [{"path": "%s/a.png"}, [{"deep": {"path": "/etc/passwd"}}]]}',
    ],
)
def test_a_request_that_names_one_other_file_is_refused(content, ask_guard, tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    content = content.replace("%s", str(tmp_path.resolve()))
    for route in ("/gradio_api/queue/join", "/gradio_api/run/upload", "/gradio_api/api/login", "/login/x"):
        answer = ask_guard(route, content=content)
        assert answer.status_code == 403
        assert "Upload the image: no other file is read" in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"{", b"a=b", b"\xff", b"[" * 100_000, b'{"data": NaN}'])
def test_a_request_that_is_no_json_is_refused(content, ask_guard):
    answer = ask_guard("/gradio_api/component_server", content=content)
    assert answer.status_code == 400
    assert answer.json() == {"detail": "The request is no JSON."}


def test_a_form_is_no_request_but_for_a_login_and_an_upload(ask_guard):
    assert ask_guard("/gradio_api/component_server", files={"a": b"b"}).status_code == 400
    assert ask_guard("/gradio_api/process_recording", files={"a": b"b"}).status_code == 400
    assert ask_guard("/gradio_api/upload", files={"a": b"b"}).status_code == 200
    assert ask_guard("/login", data={"username": "anna"}).status_code == 200


def test_a_request_has_a_size(http):
    text = json.dumps({"data": ["a" * 2**20, None], "fn_index": 0, "session_hash": "visitor"})
    assert http.post("/gradio_api/queue/join", content=text).status_code == 413
    assert http.post("/gradio_api/queue/join", content=iter([text.encode()])).status_code == 411


def test_an_upload_has_a_size(http):
    assert upload_file(http, "a.png", bytes(guard.MAX_REQUEST + 1)).status_code == 200
    assert upload_file(http, "a.png", bytes(guard.MAX_UPLOAD + 1)).status_code == 413


def test_uploads_have_a_size_in_sum(http, uploads, monkeypatch):
    def send(color: int) -> Path:
        image = Image.effect_noise((100, 100), color)
        file = io.BytesIO()
        image.save(file, "PNG")
        answer = upload_file(http, "a.png", file.getvalue())
        answer.raise_for_status()
        return Path(answer.json()[0])

    first = send(20)
    second = send(40)
    assert uploads in first.parents
    assert first.exists()
    monkeypatch.setattr(guard, "MAX_UPLOADS", second.stat().st_size + 12_000)
    third = send(60)
    assert not first.exists()
    assert second.exists()
    assert third.exists()
    monkeypatch.setattr(guard, "MAX_UPLOADS", 100)
    assert upload_file(http, "a.png", bytes(200)).status_code == 503
    assert third.exists()


def test_a_file_that_may_not_be_deleted_stays_and_the_next_one_makes_room(tmp_path, monkeypatch):
    """On Windows a file that is open is not deleted."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(bytes(10))
        os.utime(tmp_path / f"{number}.png", (number, number))
    unlink = Path.unlink

    def refuse_first(path: Path, missing_ok: bool) -> None:
        if path.name == "0.png":
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_first)
    guard.delete_oldest(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "2.png"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": "http://localhost:1", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},  # an image or a script
        {"host": "example.org:80"},  # a name that leads to 127.0.0.1
        {"host": "example.org:80", "origin": "http://example.org:80", "sec-fetch-site": "same-origin"},
        {"origin": "http://example.org", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a form
        {"host": ""},
    ],
)
def test_another_web_site_is_not_answered(headers, http):
    assert http.get("/config", headers=headers).status_code == 403
    assert http.get("/", headers=headers).status_code == 403
    assert http.post("/gradio_api/call/search", json={"data": []}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:PORT", "sec-fetch-site": "same-origin"},
        {"host": "localhost:PORT", "origin": "http://localhost:PORT"},
        {"host": "[::1]:PORT"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link
    ],
)
def test_the_page_itself_and_a_link_to_it_are_answered(headers, http):
    headers = {name: value.replace("PORT", str(http.base_url.port)) for name, value in headers.items()}
    assert http.get("/config", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}, {"origin": "http://[a]"}]
)
def test_a_header_that_is_no_address_is_refused(headers, http):
    answer = http.get("/config", headers=headers)
    assert answer.status_code == 400
    assert "must be addresses" in answer.json()["detail"]


@pytest.fixture
def log_in(tmp_path, monkeypatch):
    """Logs in several times at once; returns the addresses that are let through, and how long each has to rest."""
    events = []

    async def app(scope, receive, send):
        events.append(scope["client"][0])
        await send({"type": "http.response.start", "status": scope["status"], "headers": []})

    async def rest(seconds):
        events.append(seconds)
        for _ in range(9):
            await asyncio.sleep(0)

    async def send(message):
        pass

    async def log_in_at_once(statuses: list[int], addresses: str) -> None:
        server = guard.Guard(app, tmp_path)
        scope = {"type": "http", "path": "/login", "headers": [], "method": "POST"}
        scopes = [scope | {"status": status, "client": (address, 1)} for status, address in zip(statuses, addresses)]
        await asyncio.gather(*(server(scope, None, send) for scope in scopes))

    def run(statuses: list[int], addresses: str) -> list:
        asyncio.run(log_in_at_once(statuses, addresses))
        return events

    monkeypatch.setattr(guard, "sleep", rest)
    return run


def test_an_address_has_to_wait_after_a_wrong_login(log_in):
    assert log_in([400, 400, 200], "aaa") == ["a", 1.0, "a", 1.0, "a"]


def test_another_address_does_not_wait(log_in):
    events = log_in([400, 400], "ab")
    assert events in (["a", 1.0, "b", 1.0], ["a", "b", 1.0, 1.0])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


def make_bomb() -> bytes:
    """A small file of 400 million pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def test_what_is_wrong_with_an_uploaded_picture_is_said(address, tmp_path):
    client = Client(address, verbose=False)
    for content, message in ((make_bomb(), "400000000 pixels"), (POSTSCRIPT, "none of JPEG, PNG")):
        (tmp_path / "a.png").write_bytes(content)
        found = predict(client, "", tmp_path / "a.png")
        assert "not an image that can be read" in found
        assert message in found
    assert "This text has 20,001 characters" in predict(client, "a" * 20_001)


def test_visitors_at_once_all_get_their_own_answer(address, collection, handlers):
    def ask_page(number: int) -> tuple[str, str]:
        client = Client(address, verbose=False)
        alone = predict(client, "", collection / "photos" / f"{number}.png")
        return alone, predict(client, f"A red boat. {'sea ' * number}")

    with ThreadPoolExecutor(6) as executor:
        answers = list(executor.map(ask_page, range(6)))
    for number, (alone, found) in enumerate(answers):
        assert f'data-name="{number}.png"' in alone
        assert "1.000" in alone
        results = handlers.searcher.search(handlers.searcher.embed(f"A red boat. {'sea ' * number}"), 4)
        assert all(f'data-name="{result.key}"' in found for result in results)


BAD_SEARCHES = [
    ["a\ud800 boat", None, "", "", ""],
    ["qzqz", None, "", "", ""],
    ["", None, "", "", ""],
    ["a boat", None, "nowhere", "", ""],
    ["a boat", None, "", "yesterday", ""],
    ["a boat", None, "", "2024-05-02", "2024-05-01"],
    ["a boat", "a.png", "", "", ""],
    ["a boat", {"path": "http://example.org/a.png"}, "", "", ""],
    ["a boat", {"url": "http://example.org/a.png"}, "", "", ""],
    ["a boat"],
    [],
    None,
]


def test_a_bad_search_changes_nothing_for_the_good_ones(http):
    """Each bad one between two good ones: they have the same results, and it has none."""

    def search(data: object) -> tuple[str, list[str]]:
        # not by `json=`, which refuses half a character
        content = json.dumps({"data": data})
        answer = http.post("/gradio_api/call/search", content=content, headers={"content-type": "application/json"})
        text = answer.text
        if answer.status_code == 200:
            text = read_events(http, answer)
        return text, re.findall(r'data-name=..([^"]*?)..>', text)

    good = ["a red boat", None, "", "", ""]
    _, expected = search(good)
    assert len(expected) == 4
    for data in BAD_SEARCHES:
        text, found = search(data)
        assert found == [], data
        assert any(word in text for word in ("alert", "event: error", "detail")), data
        _, again = search(good)
        assert again == expected, data


def test_only_users_are_let_in(handlers, tmp_path):
    logins = [("anna", "a long: password"), ("ben", "another one")]
    with visit(handlers, tmp_path, logins) as address, httpx.Client(base_url=address, trust_env=False) as http:
        assert "collection" not in http.get("/").text
        for path in ("config", "gradio_api/queue/data?session_hash=a"):
            assert http.get(f"/{path}").status_code == 401, path
        body = {"data": ["a boat", None], "fn_index": 0, "session_hash": "a"}
        for path in ("queue/join", "call/search", "component_server", "upload"):
            assert http.post(f"/gradio_api/{path}", json=body).status_code == 401, path
        answer = http.post("/login", data={"username": "anna", "password": "another one"})
        assert answer.status_code == 400
        answer = http.post("/login", data={"username": "anna", "password": "a long: password"})
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        assert all("SameSite=lax" in cookie for cookie in cookies)
        assert all("HttpOnly" in cookie for cookie in cookies)
        client = Client(address, auth=("anna", "a long: password"), verbose=False)
        assert 'class="card"' in predict(client, "a boat")


@pytest.mark.parametrize(
    "content, message",
    [
        ("anna password", "line 1: write USER:PASSWORD"),
        ("anna:password\n\nben:1234567", "line 3: write USER:PASSWORD, each user once, with at least 8 char"),
        ("anna:password\nanna:password2", "line 2: write USER:PASSWORD, each user once"),
        ("\n", "names no user"),
    ],
)
def test_a_file_of_users_that_cannot_be_used_is_refused(content, message, tmp_path):
    file = tmp_path / "users"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ValueError, match=message) as caught:
        read_logins(file)
    assert "1234567" not in str(caught.value)
    assert "password2" not in str(caught.value)


def test_a_file_of_users_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "users"
    file.write_text("anna:password")
    file.chmod(0o620)
    with pytest.raises(ValueError, match="can be read by others: `chmod 600"):
        read_logins(file)


def test_a_password_may_hold_colons_and_blanks(tmp_path):
    file = tmp_path / "users"
    file.write_text("\ufeffanna: a password:1\n")  # with the byte-order mark of Windows
    file.chmod(0o600)
    assert read_logins(file) == [("anna", " a password:1")]
