"""A Hub in a thread: the part of the real protocol that huggingface_hub uses to push and pull models.

Repositories live in memory. Every push is one commit; weights go through the LFS batch API to a separate upload address
or, from clients with hf_xet, into the Xet storage (`xet.py`), everything else is in the commit itself. `fail` breaks a
request on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub import xet

TOKEN, USER = "hf_stand_in_token", "anna"
LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".png", ".parquet")
LFS_MEDIA = "application/vnd.git-lfs+json"


@dataclass
class Repository:
    """Files by path; `commits` are (hash, message, files), the newest last; `kind` is what it was created as."""

    private: bool
    kind: str = "model"
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr((message, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((digest, message, files))
        return digest

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][2]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def messages(self) -> list[str]:
        return [message for _, message, _ in self.commits[1:]]

    def at(self, revision: str) -> dict[str, bytes] | None:
        commits = [files for digest, _, files in self.commits if revision in (digest, "main")]
        return commits[-1] if commits else None


@dataclass
class Failure:
    """Break requests whose method and path match, `times` times: a status, or a dropped connection."""

    pattern: re.Pattern[str]
    status: int | None
    times: int
    seen: int = 0


class StandIn:
    """The server; `url` is what HF_ENDPOINT is set to.

    Attributes:
        repositories: By id.
        stored: LFS objects by SHA-256, those of the Xet storage included.
        xet: The Xet storage.
        requests: "METHOD path" of every request so far.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.xet = xet.XetStore()
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            stand_in = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        self.thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def add(self, repo_id: str, files: dict[str, bytes]) -> None:
        """Add an existing repository."""
        self.repositories[repo_id] = Repository(private=False)
        self.repositories[repo_id].commit("initial commit", files)

    def fail(self, pattern: str, *, status: int | None = None, times: int = 10**9) -> Failure:
        """Answer matching requests with `status`, or drop their connection (None), before processing them."""
        self.failures.append(Failure(re.compile(pattern), status, times))
        return self.failures[-1]

    def failure_for(self, request: str) -> Failure | None:
        with self.lock:
            self.requests.append(request)
            for failure in self.failures:
                if failure.pattern.search(request) and failure.seen < failure.times:
                    failure.seen += 1
                    return failure
        return None


class _Handler(xet.XetRoutes, BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and content are written one after the other: the second would wait 40 ms

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _handle(self) -> None:
        path = urlsplit(self.path).path
        failure = self.stand_in.failure_for(f"{self.command} {path}")
        if failure is not None and failure.status is None:
            self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 10))  # in the middle of the body
            self.close_connection = True
            self.connection.close()
            return
        self.body = self._read_body()
        if failure is not None:
            messages = {401: "Invalid credentials in Authorization header", 403: "no write access"}
            self._error(int(failure.status or 0), messages.get(int(failure.status or 0), "something broke"))
            return
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                handler(self, *(unquote(part) for part in match.groups() if part is not None))
                return
        self._error(404, f"no route for {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # ---- answers ----

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _error(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X_Error_Message": message, **({"X_Error_Code": code} if code else {})}
        self._answer(status, json.dumps({"error": message}).encode(), Content_Type="application/json", **headers)

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _writer(self) -> bool:
        if not self._authorized():
            self._error(401, "Invalid credentials in Authorization header")
        return self._authorized()

    def _repository(self, repo_id: str) -> Repository | None:
        repository = self.stand_in.repositories.get(repo_id)
        if repository is None or (repository.private and not self._authorized()):
            self._error(404 if self._authorized() else 401, "Repository not found", "RepoNotFound")
            return None
        return repository

    def _files(self, repo_id: str, revision: str) -> dict[str, bytes] | None:
        repository = self._repository(repo_id)
        if repository is None:
            return None
        files = repository.at(revision)
        if files is None:
            self._error(404, "Invalid rev id", "RevisionNotFound")
        return files

    # ---- routes ----

    def who_am_i(self) -> None:
        if self._writer():
            self._json({"type": "user", "name": USER, "fullname": USER, "orgs": []})

    def create(self) -> None:
        if not self._writer():
            return
        request = json.loads(self.body)
        repo_id = f"{request.get('organization') or USER}/{request['name']}"
        if not repo_id.startswith((f"{USER}/", "team/")):
            self._error(403, f"You don't have the rights to create a model under {request['organization']}")
            return
        known = repo_id in self.stand_in.repositories
        if not known:
            private = request.get("visibility") == "private" or request.get("private") is True
            repository = self.stand_in.repositories[repo_id] = Repository(private, request.get("type") or "model")
            repository.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        status = 409 if known else 200
        self._json({"url": f"{self.stand_in.url}/{repo_id}", "name": repo_id, "id": repo_id}, status)

    def validate(self) -> None:
        """The Hub's checks of a card: its head is YAML, and known fields have the right types."""
        content = json.loads(self.body)["content"]
        head = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
        errors = []
        try:
            data = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            data, errors = {}, [{"message": str(error)}]
        for name in ("license", "pipeline_tag", "library_name"):
            if not isinstance(data.get(name, ""), str):
                errors.append({"message": f'"{name}" must be a string'})
        for result in (data.get("model-index") or [{}])[0].get("results", []):
            if not {"task", "dataset", "metrics"} <= set(result):
                errors.append({"message": '"model-index[0].results" is incomplete'})
        if re.search(r'"?base_model"?:\s*["\']?[./~]', head[1] if head else ""):
            errors.append({"message": '"base_model" with a path is not valid'})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, repo_id: str, revision: str) -> None:
        if not self._writer():
            return
        files = self._files(repo_id, revision)
        if files is None:
            return
        entries = [
            {
                "path": entry["path"],
                "uploadMode": "lfs" if entry["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                **({"oid": content_oid(files[entry["path"]], entry["path"])} if entry["path"] in files else {}),
            }
            for entry in json.loads(self.body)["files"]
        ]
        self._json({"files": entries})

    def lfs_batch(self, repo_id: str) -> None:
        if not self._writer():
            return
        request = json.loads(self.body)
        assert request["operation"] == "upload" and "basic" in request["transfers"]
        objects = []
        for entry in request["objects"]:
            action = {"upload": {"href": f"{self.stand_in.url}/lfs-storage/{entry['oid']}"}}
            stored = entry["oid"] in self.stand_in.stored
            objects.append({**entry, "authenticated": True, **({} if stored else {"actions": action})})
        self._answer(200, json.dumps({"transfer": "basic", "objects": objects}).encode(), Content_Type=LFS_MEDIA)

    def lfs_store(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            self._error(400, "the content is not what its name says")
            return
        self.stand_in.stored[digest] = self.body
        self._answer(200)

    def commit(self, repo_id: str, revision: str) -> None:
        if not self._writer():
            return
        files = self._files(repo_id, revision)
        if files is None:
            return
        files, message = dict(files), ""
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.stand_in.stored[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self._error(400, f"unknown operation {entry['key']}")
                return
        digest = self.stand_in.repositories[repo_id].commit(message, files)
        url = f"{self.stand_in.url}/{repo_id}/commit/{digest}"
        self._json({"success": True, "commitOid": digest, "commitUrl": url, "hookOutput": ""})

    def info(self, repo_id: str, revision: str = "main") -> None:
        files = self._files(repo_id, revision)
        if files is None:
            return
        repository = self.stand_in.repositories[repo_id]
        siblings = [{"rfilename": name} for name in sorted(files)]
        answer = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": repository.head, "private": repository.private}
        self._json({**answer, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def tree(self, repo_id: str, revision: str, folder: str = "") -> None:
        files = self._files(repo_id, revision)
        if files is None:
            return
        folder = folder.strip("/")
        below = {name: data for name, data in files.items() if not folder or name.startswith(f"{folder}/")}
        if folder and not below:
            self._error(404, f"{folder} does not exist", "EntryNotFound")
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        for name, data in sorted(below.items()):
            inside = name[len(folder) + 1 if folder else 0 :].split("/")
            for depth in range(1, len(inside)):
                parent = "/".join(([folder] if folder else []) + inside[:depth])
                if depth == 1 or recursive:
                    entries.setdefault(parent, {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0})
            if len(inside) == 1 or recursive:
                lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                entry = {"type": "file", "path": name, "oid": git_oid(data), "size": len(data)}
                entries[name] = entry | ({"lfs": lfs} if name.endswith(LFS_SUFFIXES) else {})
        self._json(list(entries.values()))

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        files = self._files(repo_id, revision)
        if files is None:
            return
        head = self.stand_in.repositories[repo_id].head
        if name not in files:
            self._answer(404, b"", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=head)
            return
        data = files[name]
        etag = f'"{content_oid(data, name)}"'
        headers = {"X_Repo_Commit": head, "ETag": etag}
        if name.endswith(LFS_SUFFIXES):
            headers |= {"X_Linked_Etag": etag, "X_Linked_Size": str(len(data))}
            if digest := self.stand_in.xet.hashes.get(content_oid(data, name)):
                token = f"{self.stand_in.url}/api/models/{repo_id}/xet-read-token/{revision}"
                headers |= {"X_Xet_Hash": digest, "X_Xet_Refresh_Route": token}
        self._answer(200, data, Content_Type="application/octet-stream", **headers)


def content_oid(data: bytes, name: str) -> str:
    """The id that tells the client whether a file has changed: SHA-256 for weights, else git's blob id."""
    return hashlib.sha256(data).hexdigest() if name.endswith(LFS_SUFFIXES) else git_oid(data)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"([^/]+/[^/]+)"
_KIND = "(?:models|datasets)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), r"/api/whoami-v2", _Handler.who_am_i),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate),
    (("POST",), rf"/api/{_KIND}/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (("POST",), rf"/(?:datasets/)?{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs-storage/([0-9a-f]{64})", _Handler.lfs_store),
    (("POST",), rf"/api/{_KIND}/{_REPO}/commit/([^/]+)", _Handler.commit),
    (("GET",), rf"/api/{_KIND}/{_REPO}", _Handler.info),
    (("GET",), rf"/api/{_KIND}/{_REPO}/revision/([^/]+)", _Handler.info),
    (("GET",), rf"/api/{_KIND}/{_REPO}/tree/([^/]+)(/.*)?", _Handler.tree),
    (("GET", "HEAD"), rf"/(?:datasets/)?{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    *xet.ROUTES,
]
