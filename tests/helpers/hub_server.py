"""A server on loopback, out of a folder, for the Hub's routes that huggingface_hub calls."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import transformers
from huggingface_hub import constants, hf_api

from modeling_lotlip import hub_lotlip


FILE_TEMPLATE = "{repo_id}/resolve/{revision}/{filename}"


def repo_files(repo: Path) -> dict[str, Path]:
    return {file.relative_to(repo).as_posix(): file for file in sorted(repo.rglob("*")) if file.is_file()}


def commit_hash(repo: Path) -> str:
    digest = hashlib.sha1()
    for name, file in repo_files(repo).items():
        digest.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def describe_file(name: str, file: Path) -> dict:
    oid = hashlib.sha1(file.read_bytes()).hexdigest()
    return {"type": "file", "path": name, "size": file.stat().st_size, "oid": oid}


def describe_folder(name: str) -> dict:
    return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}


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
            (r"/api/agent-harnesses", "list_harnesses"),
            (r"/api/(?:models|datasets)/(.+?/[^/]+)/tree/[^/]+(/.*)?", "list_files"),
            (r"/api/(?:models|datasets)/(.+?/[^/]+?)(?:/revision/[^/]+)?", "describe"),
            (r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "send_file"),
        )

    do_HEAD = do_GET

    def do_POST(self):
        self.route(
            (r"/api/repos/create", "create_repo"),
            (r"/api/validate-yaml", "validate_yaml"),
            (r"/api/datasets/(.+?/[^/]+)/paths-info/[^/]+", "describe_files"),
            (r"/api/models/(.+?/[^/]+)/preupload/main", "choose_upload_modes"),
            (r"/api/models/(.+?/[^/]+)/commit/main", "commit"),
        )

    # Reading

    def list_harnesses(self):
        """What huggingface_hub asks once in a process, to know programs that are run by others."""
        self.reply_json({"standardEnvVars": [], "harnesses": {}})

    def list_files(self, repo_id: str, folder: str | None):
        repo = self.server.root / repo_id
        folder = (folder or "").strip("/")
        if not repo.is_dir():
            return self.refuse("RepoNotFound")
        is_recursive = "recursive=true" in self.path.lower()
        entries = []
        folders = {}
        for name, file in repo_files(repo).items():
            if folder and not name.startswith(f"{folder}/"):
                continue
            inside = name.removeprefix(f"{folder}/") if folder else name
            for parent in [*Path(inside).parents][:-1]:
                if is_recursive or len(parent.parts) == 1:
                    folders[str(Path(folder, parent))] = None
            if is_recursive or "/" not in inside:
                entries.append(describe_file(name, file))
        entries += [describe_folder(name) for name in folders]
        if folder and not entries:
            return self.refuse("EntryNotFound")
        self.reply_json(entries)

    def describe_files(self, repo_id: str):
        repo = self.server.root / repo_id
        files = repo_files(repo)
        names = json.loads(self.read_body())["paths"]
        described = [describe_file(name, files[name]) for name in names if name in files]
        self.reply_json(described + [describe_folder(name) for name in names if (repo / name).is_dir()])

    def describe(self, repo_id: str):
        repo = self.server.root / repo_id
        if not repo.is_dir():
            return self.refuse("RepoNotFound")
        siblings = [{"rfilename": name} for name in repo_files(repo)]
        facts = {"id": repo_id, "sha": commit_hash(repo), "private": False, "tags": []}
        self.reply_json({**facts, "siblings": siblings})

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
        facts = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": commit}
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):  # of a stream
            first, last = int(part[1]), min(int(part[2]), len(content) - 1)
            facts["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.reply(content[first : last + 1], 206, **facts)
        self.reply(content, **facts)

    # Writing

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
            self.reply_json({"url": f"{self.server.url}/{repo_id}", "name": repo_id})

    def validate_yaml(self):
        self.server.model_cards.append(json.loads(self.read_body())["content"])
        self.reply_json({"errors": [], "warnings": []})

    def choose_upload_modes(self, repo_id: str):
        if self.is_authorized():
            files = json.loads(self.read_body())["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.reply_json({"files": [{"path": file["path"], **mode} for file in files]})

    def commit(self, repo_id: str):
        if self.is_authorized():
            repo = self.server.root / repo_id
            for line in self.read_body().splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "file":
                    (repo / value["path"]).parent.mkdir(parents=True, exist_ok=True)
                    (repo / value["path"]).write_bytes(base64.b64decode(value["content"]))
                elif operation["key"] == "deletedFile":
                    (repo / value["path"]).unlink()
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
    server.root = Path(root)
    server.token = token
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.requests = []
    server.unknown_routes = []
    server.model_cards = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Makes a server the Hub of this process: huggingface_hub keeps its address in several places."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr(transformers.utils.hub.hf_api(), "endpoint", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{FILE_TEMPLATE}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


def find_on_hub(argv: list[str]) -> None:
    """Prints the folder of a repository of a server, as a program that has a cache finds it."""
    url, cache, repo_id = argv
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_hub(monkeypatch, url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        print(hub_lotlip.find_pretrained(repo_id))
