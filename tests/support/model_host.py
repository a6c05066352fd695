"""A web server on loopback that responds to each request for a model according to a script."""

import hashlib
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from typing_extensions import override

GGUF = b"GGUF" + bytes(range(256)) * 40
"""A small model with a valid magic; a shift of its bytes is detectable."""

SHA256 = hashlib.sha256(GGUF).hexdigest()

OTHER = b"GGUF" + b"other" * 100
"""Another, shorter model."""

Reply = Callable[[BaseHTTPRequestHandler], None]


def content(
    body: bytes = GGUF,
    *,
    etag: str | None = '"v1"',
    modified: str | None = None,
    cut: int | None = None,
    ranges: bool = True,
) -> Reply:
    """Serve `body` with support for ranges, or close after `cut` bytes of the response."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        start = _start(request, etag or modified) if ranges else 0
        if start and start >= len(body):
            return status(416)(request)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            request.send_header("ETag", etag)
        if modified:
            request.send_header("Last-Modified", modified)
        _send(request, body[start:], cut)
        return None

    return reply


def other_range(start: int, total: int, body: bytes = b"", code: int = 206) -> Reply:
    """Respond with this range, whatever was requested."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        _send(request, body)

    return reply


def chunked(body: bytes = GGUF, *, finished: bool = True) -> Reply:
    """Serve `body` in one chunk without its length; `finished` adds the last chunk."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) + b"0\r\n\r\n" * finished)
        request.close_connection = True

    return reply


def endless(body: bytes = GGUF) -> Reply:
    """Serve `body` as in HTTP/1.0, where the end of the connection ends the body."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True

    return reply


def status(code: int, **headers: str) -> Reply:
    """Respond with a status and an empty body."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        _send(request, b"")

    return reply


def redirect(location: str) -> Reply:
    """Redirect to a location."""
    return status(302, Location=location)


def by_name(replies: Mapping[str, Reply]) -> Reply:
    """Respond by the last segment of the URL's path, and with 404 to all others."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].rpartition("/")[2]
        replies.get(name, status(404))(request)

    return reply


class ModelHost:
    """Records requests, and responds from a script, whose last reply repeats."""

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}/model.gguf"
        self.paths: list[str] = []
        """The path and query of each request."""
        self.requests: list[Message] = []
        """The headers of each request."""
        self._script: Sequence[Reply] = [status(500)]

    def respond_with(self, *script: Reply) -> None:
        """Respond to the next requests with these replies, in order."""
        self._script = script
        self.requests.clear()
        self.paths.clear()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Respond to one request."""
        self.requests.append(request.headers)
        self.paths.append(request.path)
        self._script[min(len(self.requests), len(self._script)) - 1](request)


@contextmanager
def model_host(tls: ssl.SSLContext | None = None) -> Iterator[ModelHost]:
    """Run a host on a free port of 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Respond from the script."""
            host.handle(self)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: requests are recorded."""

    class Server(ThreadingHTTPServer):
        @override
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Print nothing: clients close connections early."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    host = ModelHost(server.server_port, "https" if tls else "http")
    thread = Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _start(request: BaseHTTPRequestHandler, validator: str | None) -> int:
    requested = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if requested is None or request.headers.get("If-Range", validator) != validator:
        return 0
    return int(requested[1])


def _send(request: BaseHTTPRequestHandler, body: bytes, cut: int | None = None) -> None:
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[:cut])
    if cut is not None:
        request.close_connection = True
