"""A server of OpenAI's chat completions that fails, stalls and answers nonsense."""

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

from PIL import Image


class Server(BaseHTTPRequestHandler):
    """Chat completions: what is wrong with the first requests for an image is in `server.faults`, by its hash."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        with suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def reply(
        self,
        status: int,
        content: object,
        retry_after: str | None = None,
        seconds_per_byte: float = 0,
        headers: Mapping[str, str] = MappingProxyType({}),
    ):
        """Sends an answer: `content` as JSON unless it is bytes, all at once or byte by byte."""
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        content_type = "application/json"
        if content.startswith(b"<"):
            content_type = "text/html"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if seconds_per_byte == 0:
            self.wfile.write(content)
            return
        for start in range(len(content)):
            self.wfile.write(content[start : start + 1])
            time.sleep(seconds_per_byte)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if len(content) < int(self.headers["Content-Length"]):  # of a client that was killed
            self.close_connection = True
            return
        request = json.loads(content)
        image, text = request["messages"][0]["content"]
        kind, _, encoded = image["image_url"]["url"].partition(";base64,")
        content = base64.b64decode(encoded)
        digest = hashlib.sha256(content).hexdigest()
        server = self.server
        with server.lock:
            server.requests.append((digest, kind, request, self.headers["Authorization"]))
            server.sizes.append(Image.open(io.BytesIO(content)).size)
            server.at_work += 1
            server.most_at_work = max(server.most_at_work, server.at_work)
            faults = server.faults.get(digest)
            fault = None
            if faults:
                fault = faults.pop(0)
        time.sleep(0.05)
        with server.lock:
            server.at_work -= 1
        if fault == "stall":
            server.is_over.wait(10)
            self.close_connection = True
        elif fault == "hang up":
            self.close_connection = True
        elif fault is not None:
            self.reply(*fault)
        else:
            message = {"role": "assistant", "content": f" {digest} of {text['text']} "}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
            about = {"id": "1", "object": "chat.completion", "created": 1, "model": request["model"]}
            self.reply(200, {**about, "choices": choices, "usage": usage})


@contextmanager
def serve(faults: dict[str, list]) -> Iterator[ThreadingHTTPServer]:
    """Serves while it is open; `server.url` is the endpoint, `server.requests` what came."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.faults = faults
    server.requests = []
    server.sizes = []
    server.lock = threading.Lock()
    server.is_over = threading.Event()
    server.at_work = server.most_at_work = 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
