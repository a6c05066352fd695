"""Replies of a model host that supports ranges, for clients with several connections."""

from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from random import Random
from threading import Lock

from gguf_files import gguf
from model_host import Reply

PIECE_BYTES = 256 * 1024

Fault = Callable[[int, BaseHTTPRequestHandler], Reply | None]
"""(number of the request from 0, request) -> the reply instead of the file's bytes, or None."""


def large_model(
    size: int,
    *,
    seed: int = 1,
    kind: str | None = None,
    architecture: str | None = None,
    tokens: Sequence[str] = (),
) -> bytes:
    """Return a GGUF file of at least this size with random content."""
    elements = size // 4
    tokenizer = "llama" if tokens else None
    file = gguf(
        {"weights": elements},
        kind=kind,
        architecture=architecture,
        tokens=tokens,
        tokenizer=tokenizer,
    )
    return file[: -4 * elements] + Random(seed).randbytes(4 * elements)


class RangedModel:
    """Serves a file with support for ranges, except where `fault` replies."""

    def __init__(
        self,
        body: bytes,
        *,
        etag: str = '"v1"',
        cut: int | None = None,
        fault: Fault = lambda _number, _request: None,
        sent: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self.body = body
        self.etag = etag
        self.cut = cut
        """Bytes of each response after which the connection ends."""
        self.fault = fault
        self.sent = sent
        """Is called with the size of each piece of a body that was sent."""
        self.ranges: list[tuple[int, int]] = []
        """First byte and end of each range that was served."""
        self._lock = Lock()
        self._requests = 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            number = self._requests
            self._requests += 1
        other = self.fault(number, request)
        if other:
            other(request)
            return
        self.serve(request)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Respond with the requested range, or with all of it if the version is another."""
        body, etag = self.body, self.etag
        start, end = 0, len(body)
        requested = request.headers.get("Range")
        if requested and request.headers.get("If-Range", etag) == etag:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, end) if last else end
        with self._lock:
            self.ranges.append((start, end))
        partial = (start, end) != (0, len(body))
        request.send_response(206 if partial else 200)
        if partial:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("ETag", etag)
        request.send_header("Content-Length", str(end - start))
        request.end_headers()
        try:
            content = memoryview(body)[start:end][: self.cut]
            for offset in range(0, len(content), PIECE_BYTES):
                piece = content[offset : offset + PIECE_BYTES]
                request.wfile.write(piece)
                self.sent(len(piece))
        except OSError:
            request.close_connection = True  # the client has closed the connection
        if self.cut is not None:
            request.close_connection = True


def faults(seed: int, kinds: Sequence[Reply], share: float) -> Fault:
    """Return random faults in this share of the requests for ranges."""
    random = Random(seed)

    def fault(_number: int, request: BaseHTTPRequestHandler) -> Reply | None:
        faulty = "Range" in request.headers and random.random() < share
        return random.choice(kinds) if faulty else None

    return fault
