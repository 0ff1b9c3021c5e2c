"""A server on loopback, out of a folder, for the Hub's routes that transformers, huggingface_hub and datasets call."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


# A repository with this file in it sends the files that the file lists only half, then hangs up.
CUT_OFF = ".cut-off"
# One with this file has the commit that the file names.
COMMIT = ".commit"


def repo_files(repo: Path) -> dict[str, Path]:
    return {
        file.relative_to(repo).as_posix(): file
        for file in sorted(repo.rglob("*"))
        if file.is_file() and file.name not in (CUT_OFF, COMMIT)
    }


def commit_hash(repo: Path) -> str:
    if (repo / COMMIT).exists():
        return (repo / COMMIT).read_text()
    digest = hashlib.sha1()
    for name, file in repo_files(repo).items():
        digest.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def direct_children(files: list[dict], folder: str) -> list[dict]:
    """Of files at any depth those that lie in a folder itself, and the folders in it."""
    children = {}
    for file in files:
        name, *deeper = Path(file["path"]).relative_to(folder).parts
        path = f"{folder}/{name}" if folder else name
        oid = hashlib.sha1(path.encode()).hexdigest()
        children[path] = {"type": "directory", "path": path, "size": 0, "oid": oid} if deeper else file
    return list(children.values())


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        self.server.requests.append(f"{self.command} {self.path}")

    def reply(self, content: bytes = b"", status: int = 200, **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(self, content: dict | list):
        self.reply(json.dumps(content).encode(), Content_Type="application/json")

    def refuse(self, code: str, status: int = 404, **headers: str):
        self.reply(status=status, X_Error_Code=code, X_Error_Message=f"{code}: {self.path}", **headers)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def route(self, *routes: tuple[str, str]):
        """Calls the method of the first route whose pattern fits the path."""
        path = unquote(urlsplit(self.path).path)
        for pattern, method in routes:
            if match := re.fullmatch(pattern, path):
                return getattr(self, method)(*match.groups())
        self.server.unknown_routes.append(f"{self.command} {self.path}")
        self.refuse("UnknownRoute", status=501)

    def do_GET(self):
        self.route(
            (r"/api/(?:models|datasets)/(.+?/[^/]+)/tree/[^/]+(/.*)?", "list_files"),
            (r"/api/(?:models|datasets)/(.+?/[^/]+?)(?:/revision/[^/]+)?", "describe"),
            (r"/(?:spaces/|datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "send_file"),
        )

    do_HEAD = do_GET

    def do_POST(self):
        self.route(
            (r"/api/repos/create", "create_repo"),
            (r"/api/validate-yaml", "validate_yaml"),
            (r"/api/(?:models|spaces|datasets)/(.+?/[^/]+)/preupload/main", "choose_upload_modes"),
            (r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "start_uploads"),
            (r"/api/(?:models|spaces|datasets)/(.+?/[^/]+)/commit/main", "commit"),
        )

    def do_PUT(self):
        self.route((r"/-/uploads/([0-9a-f]{64})", "receive_upload"))

    # Reading

    def list_files(self, repo_id: str, folder: str | None):
        repo, folder = self.server.root / repo_id, (folder or "").strip("/")
        if not repo.is_dir():
            return self.refuse("RepoNotFound")
        entries = [
            {"type": "file", "path": name, "size": file.stat().st_size, "oid": hashlib.sha1(name.encode()).hexdigest()}
            for name, file in repo_files(repo).items()
            if name.startswith(f"{folder}/") or not folder
        ]
        if folder and not entries:
            return self.refuse("EntryNotFound")
        if parse_qs(urlsplit(self.path).query).get("recursive") == ["false"]:
            entries = direct_children(entries, folder)
        self.reply_json(entries)

    def describe(self, repo_id: str):
        repo = self.server.root / repo_id
        if not repo.is_dir():
            return self.refuse("RepoNotFound")
        siblings = [{"rfilename": name} for name in repo_files(repo)]
        self.reply_json({"id": repo_id, "sha": commit_hash(repo), "private": False, "siblings": siblings, "tags": []})

    def send_file(self, repo_id: str, revision: str, name: str):
        repo = self.server.root / repo_id
        if not repo.is_dir():
            return self.refuse("RepoNotFound")
        commit = commit_hash(repo)
        if revision not in ("main", commit):
            return self.refuse("RevisionNotFound")
        file = repo_files(repo).get(name)
        if file is None:
            return self.refuse("EntryNotFound", X_Repo_Commit=commit)

        content = file.read_bytes()
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut_off = repo / CUT_OFF
        if cut_off.exists() and name in cut_off.read_text().split():
            self.wfile.write(content[start : len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    # Writing, by the protocol of git-lfs

    def is_authorized(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        self.read_body()
        self.refuse("Unauthorized", status=401)
        return False

    def create_repo(self):
        if self.is_authorized():
            body = json.loads(self.read_body())
            repo_id = f"{body['organization'] or 'user'}/{body['name']}"
            (self.server.root / repo_id).mkdir(parents=True, exist_ok=True)
            place = "spaces/" if body.get("type") == "space" else ""
            self.reply_json({"url": f"{self.server.url}/{place}{repo_id}", "name": repo_id})

    def validate_yaml(self):
        self.server.model_cards.append(json.loads(self.read_body())["content"])
        self.reply_json({"errors": [], "warnings": []})

    def choose_upload_modes(self, repo_id: str):
        if self.is_authorized():
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".parquet", ".safetensors")) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(self.read_body())["files"]
            ]
            self.reply_json({"files": files})

    def start_uploads(self, repo_id: str):
        if self.is_authorized():
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.server.url}/-/uploads/{item['oid']}"}}}
                for item in json.loads(self.read_body())["objects"]
            ]
            self.reply_json({"transfer": "basic", "objects": objects})

    def receive_upload(self, oid: str):
        content = self.read_body()
        if hashlib.sha256(content).hexdigest() != oid:
            return self.refuse("BadUpload", status=422)
        self.server.uploads[oid] = content
        self.reply()

    def commit(self, repo_id: str):
        if self.is_authorized():
            repo = self.server.root / repo_id
            for line in self.read_body().splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] in ("file", "lfsFile"):
                    (repo / value["path"]).parent.mkdir(parents=True, exist_ok=True)
                if operation["key"] == "file":
                    (repo / value["path"]).write_bytes(base64.b64decode(value["content"]))
                elif operation["key"] == "lfsFile":
                    (repo / value["path"]).write_bytes(self.server.uploads[value["oid"]])
            commit = commit_hash(repo)
            url = f"{self.server.url}/{repo_id}/commit/{commit}"
            self.reply_json({"success": True, "commitUrl": url, "commitOid": commit})


@contextmanager
def hub_server(root: Path, token: str = "hf_test"):
    """
    Serves the repositories `root/org/name`. The server has the attributes `url`, `requests` (every method and path),
    `unknown_routes` (those of them that it does not know), `model_cards` (those it was asked to validate).
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.root, server.token, server.url = Path(root), token, f"http://127.0.0.1:{server.server_port}"
    server.requests, server.unknown_routes, server.model_cards, server.uploads = [], [], [], {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
