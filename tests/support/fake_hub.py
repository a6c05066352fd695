"""A hub with the API of Hugging Face's: repositories with commits and branches.

Files in LFS are redirected to another host, as the hub does. The tests let the real package
huggingface_hub read it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from model_host import Reply, content, status

REPOSITORY = "org/Model-GGUF"


@dataclass
class FakeHub:
    """One repository. Each commit is a complete set of files."""

    port: int
    files_url: str
    """The URL of the host of its files."""
    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """Without it, no request is accepted."""
    paths: list[str] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    replies: dict[bytes, Reply] = field(default_factory=dict)
    """How the host of the files responds instead, by their content."""
    failures: int = 0
    """How many of the next requests for the list of files get 503."""

    @property
    def endpoint(self) -> str:
        """The URL of the hub."""
        return f"http://127.0.0.1:{self.port}"

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch; return its hash."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Respond to one request, of the hub or of the host of its files."""
        url = urlsplit(request.path)
        self.paths.append(url.path)
        self.requests.append(request.headers)
        if listing := re.fullmatch(f"/api/models/{REPOSITORY}(?:/revision/([^/]+))?", url.path):
            blobs = parse_qs(url.query).get("blobs") == ["true"]
            self._list(request, unquote(listing[1] or "main"), blobs=blobs)
        elif resolving := re.fullmatch(f"/{REPOSITORY}/resolve/([^/]+)/(.+)", url.path):
            self._resolve(request, unquote(resolving[1]), unquote(resolving[2]))
        elif stored := re.fullmatch("/cdn/([0-9a-f]{64})", url.path):
            self._serve(request, stored[1])
        else:
            _error(request, 401, "RepoNotFound")

    def _list(self, request: BaseHTTPRequestHandler, revision: str, *, blobs: bool) -> None:
        commit = self.branches.get(revision, revision)
        if self.failures:
            self.failures -= 1
            status(503)(request)
        elif not self._is_authorized(request):
            _error(request, 401, "GatedRepo")
        elif commit not in self.commits:
            _error(request, 404, "RevisionNotFound")
        else:
            files = self.commits[commit]
            siblings = [_sibling(name, body, blobs=blobs) for name, body in files.items()]
            tree = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": commit, "siblings": siblings}
            _json(request, 200, tree)

    def _resolve(self, request: BaseHTTPRequestHandler, revision: str, name: str) -> None:
        commit = self.branches.get(revision, revision)
        body = self.commits.get(commit, {}).get(name)
        if not self._is_authorized(request):
            _error(request, 401, "GatedRepo")
        elif body is None:
            _error(request, 404, "EntryNotFound")
        else:
            digest = hashlib.sha256(body).hexdigest()
            request.send_response(302)
            request.send_header("Location", f"{self.files_url}/cdn/{digest}")
            request.send_header("X-Repo-Commit", commit)
            request.send_header("X-Linked-Etag", f'"{digest}"')
            request.send_header("X-Linked-Size", str(len(body)))
            request.send_header("Content-Length", "0")
            request.end_headers()

    def _serve(self, request: BaseHTTPRequestHandler, digest: str) -> None:
        if "Authorization" in request.headers:  # as S3: the URL is signed
            status(400)(request)
            return
        bodies = (body for files in self.commits.values() for body in files.values())
        body = next(each for each in bodies if hashlib.sha256(each).hexdigest() == digest)
        self.replies.get(body, content(body, etag=f'"{digest}"'))(request)

    def _is_authorized(self, request: BaseHTTPRequestHandler) -> bool:
        return self.token in {None, request.headers.get("Authorization", "")[len("Bearer ") :]}


@contextmanager
def fake_hub(
    address: str = "127.0.0.1", port: int = 0, files_url: str | None = None
) -> Iterator[FakeHub]:
    """Run a hub until the block ends, by default on a free port of 127.0.0.1.

    `files_url` is another URL of it, under which it is the host of its files.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Respond from the repository."""
            hub.respond(self)

        do_HEAD = do_GET  # noqa: N815 (http.server's name)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: requests are recorded."""

    class Server(ThreadingHTTPServer):
        @override
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Print nothing: clients close connections early."""

    server = Server((address, port), Handler)
    hub = FakeHub(server.server_port, files_url or f"http://localhost:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _sibling(name: str, body: bytes, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": name}
    blob = {"rfilename": name, "size": len(body), "blobId": hashlib.sha1(body).hexdigest()}
    if not name.endswith(".gguf"):
        return blob
    digest = hashlib.sha256(body).hexdigest()
    return blob | {"lfs": {"sha256": digest, "size": len(body), "pointerSize": 134}}


def _error(request: BaseHTTPRequestHandler, code: int, reason: str) -> None:
    _json(request, code, {"error": reason}, {"X-Error-Code": reason})


def _json(
    request: BaseHTTPRequestHandler, code: int, tree: Any, headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(tree).encode()
    request.send_response(code)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
