"""A hub on the loopback: the calls that huggingface_hub makes to write a repository and to read it back.

Repositories are kept in memory. What the real hub checks is checked: who asks, the header of README.md, that a commit
names only large files that were uploaded, and that these have the hash that they are named by.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN, OWNER = "hf_test", "someone"
REPO = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?$")
JSON = {"Content-Type": "application/json"}


@dataclass
class FakeHub:
    """What the hub holds.

    Attributes:
        url: its address.
        large: the size in bytes from which a file is uploaded as a large one (LFS).
        repositories: by name, the files with their content.
        private: names of repositories that only their owner sees.
        blobs: large files by their SHA-256.
        asked: method and path of every call.
        messages: of all commits.
        broken: paths that answer with status 500.
    """

    url: str = ""
    large: int = 1000
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def commit_id(self, repo: str) -> str:
        """Forty hexadecimal digits that change with the repository's content."""
        names = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.repositories[repo].items())
        return hashlib.sha1(json.dumps(names).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers a call."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def handle_call(self) -> None:
        """Read the body, answer, and note what was asked."""
        path = self.path.split("?")[0]
        body = self._body()
        self.hub.asked.append(f"{self.command} {path}")
        status, headers, content = 500, dict(JSON), b"{}"
        if path not in self.hub.broken:
            status, headers, content = self._answer(path, body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = handle_call

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/lfs/"):
            return self._store(path.rpartition("/")[2], body)
        if match := re.match(r"^/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)$", path):
            return self._file(match["repo"], match["file"])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            error = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return 401, {**JSON, **error}, b'{"error": "Invalid credentials in Authorization header"}'
        values: Any = json.loads(body) if body and not path.endswith("/commit/main") else {}
        if path == "/api/whoami-v2":
            return _json({"name": OWNER, "type": "user", "orgs": []})
        if path == "/api/repos/create":
            return self._create(values)
        if path == "/api/validate-yaml":
            return _validate(values["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(values)
        match = REPO.match(path)
        if match is None:
            return _json({"error": "no such call"}, 404)
        repo, rest = match["repo"], match["rest"] or ""
        if repo not in self.hub.repositories:
            return 404, {**JSON, "X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}'
        if rest.startswith("/preupload/"):
            return self._preupload(repo, values)
        if rest.startswith("/commit/"):
            return self._commit(repo, body)
        return self._tree(repo) if rest.startswith("/tree/") else self._info(repo)

    def _create(self, values: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        repo = f"{values['organization']}/{values['name']}"
        if values["organization"] != OWNER:
            return 403, {**JSON, "X-Error-Message": "You don't have the rights"}, b'{"error": "no rights"}'
        address = {"url": f"{self.hub.url}/{repo}", "name": repo}
        if repo in self.hub.repositories:
            return _json({"error": "You already created this model repo", **address}, 409)
        self.hub.repositories[repo] = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        if values.get("visibility") == "private" or values.get("private"):
            self.hub.private.add(repo)
        return _json(address)

    def _preupload(self, repo: str, values: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= self.hub.large else "regular",
                "shouldIgnore": False,
                "oid": _oid(self.hub.repositories[repo].get(file["path"])),
            }
            for file in values["files"]
        ]
        return _json({"files": files})

    def _batch(self, values: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        objects = []
        for wanted in values["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(entry)
        return _json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if hashlib.sha256(body).hexdigest() != oid:
            return _json({"error": "the content has another hash"}, 422)
        self.hub.blobs[oid] = body
        return _json({})

    def _commit(self, repo: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        changes = [json.loads(line) for line in body.splitlines()]
        files = dict(self.hub.repositories[repo])
        for change in changes:
            kind, value = change["key"], change["value"]
            if kind == "header":
                self.hub.messages.append(value["summary"])
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return _json({"error": f"{value['path']} was not uploaded"}, 422)
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                assert kind == "deletedFile"
                del files[value["path"]]
        self.hub.repositories[repo] = files
        commit = self.hub.commit_id(repo)
        return _json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}"})

    def _tree(self, repo: str) -> tuple[int, dict[str, str], bytes]:
        files = self.hub.repositories[repo].items()
        return _json([{"type": "file", "path": f, "size": len(c), "oid": _oid(c)} for f, c in files])

    def _info(self, repo: str) -> tuple[int, dict[str, str], bytes]:
        listed = [{"rfilename": f, "size": len(c)} for f, c in self.hub.repositories[repo].items()]
        about = {"id": repo, "sha": self.hub.commit_id(repo), "private": repo in self.hub.private, "tags": []}
        return _json({**about, "downloads": 0, "siblings": listed})

    def _file(self, repo: str, file: str) -> tuple[int, dict[str, str], bytes]:
        content = self.hub.repositories.get(repo, {}).get(file)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"X-Repo-Commit": self.hub.commit_id(repo), "ETag": f'"{_oid(content)}"'}, content

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _json(value: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, dict(JSON), json.dumps(value).encode()


def _oid(content: bytes | None) -> str | None:
    """The name that git gives a file's content."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _validate(content: str) -> tuple[int, dict[str, str], bytes]:
    """As the hub checks the header of a card: YAML between lines of three hyphens, an object."""
    match = re.match(r"\A---\n(.*?)\n---\n", content, re.S)
    try:
        values = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(values, dict):
        return _json({"errors": [{"message": "the card has no header"}], "warnings": []}, 400)
    return _json({"errors": [], "warnings": []})


@contextmanager
def running_hub(**settings: Any) -> Iterator[FakeHub]:
    """A hub that answers until the block ends."""
    hub = FakeHub(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
