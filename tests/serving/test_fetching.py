"""Pictures from web addresses: bounded, and from no network that the client could not reach itself."""

import asyncio
import base64
import http.server
import threading
import time

import openai
import pytest

from modeling_lotlip.network import is_public
from modeling_lotlip.serving import fetching
from modeling_lotlip.serving.fetching import FetchError, fetch
from tests.serving.test_server import PICTURES, connect, data_url, serving


PICTURE = base64.b64decode(data_url(PICTURES[0]).partition(",")[2])


@pytest.fixture
def files():
    """A server of a picture, and of what is wrong. Its address, and what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            hops = self.path.strip("/")
            if hops.isdigit() and hops != "0":
                self.send_response(302)
                self.send_header("Location", f"/{int(hops) - 1}")
            elif self.path == "/elsewhere":
                self.send_response(301)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/a.png")
            elif self.path == "/file":
                self.send_response(301)
                self.send_header("Location", "file:///etc/hostname")
            else:
                self.send_response(404 if self.path == "/none.png" else 200)
            self.end_headers()
            if self.path == "/slow":
                self.wfile.write(b"a")
                self.server.is_over.wait(30)
            self.wfile.write(bytes(200_000) if self.path == "/large" else PICTURE)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.is_over = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", server.asked
        server.is_over.set()
        server.shutdown()
        thread.join()


def get(url: str, **options) -> bytes:
    return asyncio.run(fetch(url, 100_000, **options))


def test_a_private_network_is_not_reached_by_any_name(files):
    address, asked = files
    port = address.rpartition(":")[2]
    hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ]
    for host in hosts:
        with pytest.raises(FetchError, match="is in a private network"):
            get(f"http://{host}:{port}/a.png")
    with pytest.raises(FetchError):
        get(f"http://user@127.0.0.1:{port}/a.png")
    assert asked == []


def test_a_redirect_into_a_private_network_is_not_followed(files):
    address, asked = files
    first = []

    def is_allowed(ip: str) -> bool:
        first.append(ip)
        return len(first) == 1

    with pytest.raises(FetchError, match="localhost is in a private network"):
        get(f"{address}/elsewhere", is_allowed=is_allowed)
    assert asked == ["/elsewhere"]
    with pytest.raises(FetchError, match="protocol"):
        get(f"{address}/file", is_allowed=lambda ip: True)


@pytest.mark.parametrize(
    "ip, expected",
    {
        "8.8.8.8": True,
        "2606:4700::1111": True,
        "::ffff:8.8.8.8": True,
        "127.0.0.1": False,
        "10.1.2.3": False,
        "172.16.0.1": False,
        "192.168.1.1": False,
        "169.254.169.254": False,
        "100.64.0.1": False,
        "0.0.0.0": False,
        "224.0.0.1": False,
        "255.255.255.255": False,
        "::1": False,
        "::": False,
        "fe80::1%eth0": False,
        "fc00::1": False,
        "::ffff:10.0.0.1": False,
        "64:ff9b::a00:1": False,
        "2002:a00:1::": False,
        "ff02::1": False,
        "::ffff:224.0.0.1": False,
    }.items(),
)
def test_which_addresses_are_of_the_internet(ip, expected):
    assert is_public(ip) == expected


def test_what_is_fetched_is_bounded(files, monkeypatch):
    address, _ = files
    everywhere = {"is_allowed": lambda ip: True}
    assert get(f"{address}/a.png", **everywhere) == get(f"{address}/3", **everywhere) == PICTURE
    for path, message in {
        "none.png": "the server says 404",
        "large": "more than 100000 bytes",
        "4": "more than 3 redirects",
    }.items():
        with pytest.raises(FetchError, match=message):
            get(f"{address}/{path}", **everywhere)
    monkeypatch.setattr(fetching, "SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(FetchError, match="more than 0.3 seconds"):
        get(f"{address}/slow", **everywhere)
    assert time.monotonic() - start < 20  # the server is slower


def test_addresses_in_requests(model_dir, files):
    address, asked = files
    for allowed, message in {
        "none": "this server fetches none",
        "public": "127.0.0.1 is in a private network",
    }.items():
        with serving(model_dir, allow_urls=allowed) as server, connect(server) as client:
            with pytest.raises(openai.BadRequestError, match=message):
                client.embeddings.create(model="model", input=["a boat", f"{address}/a.png"])
    assert asked == []
    with serving(model_dir, allow_urls="all", max_bytes=100_000) as server, connect(server) as client:
        answer = client.embeddings.create(model="model", input=[f"{address}/a.png", data_url(PICTURES[0])])
        assert answer.data[0].embedding == pytest.approx(answer.data[1].embedding, abs=1e-6)
        for path, message in {"none.png": "the server says 404", "large": "more than 100000 bytes"}.items():
            with pytest.raises(openai.BadRequestError, match=rf"`input\[1\]` cannot be fetched: .*{message}"):
                client.embeddings.create(model="model", input=["a boat", f"{address}/{path}"])
