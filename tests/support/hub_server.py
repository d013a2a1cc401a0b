"""A real HTTP server on loopback with the endpoints of a hub that uploading a model uses, and its refusals.

Speaks what huggingface_hub 1.33 asks without Xet: whoami, repository, tree, create, branch, preupload, LFS batch,
upload and verify, validate-yaml, commit. What was committed is in `repositories[NAME].branches[BRANCH]`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


@dataclass
class Repository:
    """Content by path of each branch, and the messages of its commits."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)


@dataclass
class HubServer:
    """`owner` is whom TOKEN belongs to. `hidden`: names that are taken though nobody sees them."""

    owner: str = "tester"
    repositories: dict[str, Repository] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fail_upload: bool = False
    """Large files are refused with 500 from then on."""
    url: str = ""


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub in a thread, until the block ends."""
    hub = HubServer()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        if not path.startswith("/store/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Invalid username or password.")
        words = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return self._send({"name": self.state.owner, "type": "user", "auth": {}})
        if path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if words[0] == "store":
            return self._store(words[1], body)
        if words[:2] == ["api", "models"]:
            return self._model("/".join(words[2:4]), words[4:], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._refuse(404, f"no {path}")

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or self.state.owner
        name = f"{owner}/{asked['name']}"
        if owner != self.state.owner:
            return self._refuse(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        if name in self.state.repositories or name in self.state.hidden:
            return self._refuse(409, "You already created this model repo")
        self.state.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return self._send({"url": f"{self.state.url}/{name}", "name": name, "id": name})

    def _model(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.state.repositories.get(name)
        if repository is None:
            return self._refuse(404, "Repository not found", "RepoNotFound")
        match rest:
            case []:
                return self._send(self._describe(name, repository, "main"))
            case ["revision", branch] if branch in repository.branches:
                return self._send(self._describe(name, repository, branch))
            case ["tree", branch] if branch in repository.branches:
                files = repository.branches[branch].items()
                return self._send(
                    [{"type": "file", "path": path, "size": len(content), "oid": "0" * 40} for path, content in files]
                )
            case ["branch", branch] if branch in repository.branches:
                return self._refuse(409, f"Reference already exists: {branch}")
            case ["branch", branch]:
                repository.branches[branch] = dict(repository.branches["main"])
                return self._send({})
            case ["preupload", branch] if branch in repository.branches:
                modes = [
                    {"path": file["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                    for file in json.loads(body)["files"]
                ]  # fmt: skip
                return self._send({"files": modes})
            case ["commit", branch] if branch in repository.branches:
                return self._commit(name, repository, branch, body)
        return self._refuse(404, f"Invalid rev id: {'/'.join(rest)}", "RevisionNotFound")

    def _describe(self, name: str, repository: Repository, branch: str) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in sorted(repository.branches[branch])]
        return {"_id": "1", "id": name, "private": repository.private, "sha": "0" * 40, "siblings": siblings,
                "downloads": 0, "likes": 0, "tags": []}  # fmt: skip

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {"oid": item["oid"], "size": item["size"], "actions": {
                "upload": {"href": f"{self.state.url}/store/{item['oid']}", "header": {}},
            }} if item["oid"] not in self.state.objects else {"oid": item["oid"], "size": item["size"]}
            for item in asked["objects"]
        ]  # fmt: skip
        self._send({"transfer": "basic", "objects": objects})

    def _store(self, digest: str, body: bytes) -> None:
        if self.state.fail_upload:
            return self._refuse(422, "the store is full")
        if hashlib.sha256(body).hexdigest() != digest:
            return self._refuse(400, "content does not have its hash")
        self.state.objects[digest] = body
        return self._send({})

    def _commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        files = dict(repository.branches[branch])
        message = ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.state.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        repository.branches[branch] = files
        repository.messages.append(message)
        self._send({"commitUrl": f"{self.state.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True})

    def _refuse(self, status: int, message: str, code: str = "") -> None:
        self._send({"error": message}, status, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})})

    def _send(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
