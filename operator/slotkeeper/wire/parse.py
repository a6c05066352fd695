"""Parse requests from bytes. Strict: input that two parsers may read differently is rejected."""

import re
from collections.abc import Callable
from enum import Enum
from typing import NoReturn

import httptools

from slotkeeper.wire.body_stream import BodyStream
from slotkeeper.wire.budget import HEADER_OVERHEAD, REQUEST_OVERHEAD
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Headers, Request, value_of

_SMALL_BODY = 16 * 1024
"""Bytes of a body that is read without a call of the body filter."""

# Bytes from which on a piece of a body becomes a part by itself. Smaller pieces are joined, since
# each object has a fixed memory overhead, and a client may send chunks of one byte.
_MIN_PART = 64 * 1024
MAX_PIPELINED = 64
"""Requests that one read may contain. Few clients pipeline at all, and a read of 256 KiB has room
for thousands, each of which occupies kilobytes."""
# A name or an address, and a port. Empty if the target has no authority.
_HOST = re.compile(rb"(?:[\w.~%-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)


class Stage(Enum):
    """How much of the current request has arrived."""

    IDLE = "nothing"
    HEAD = "part of the head"
    BODY = "the head and part of the body"


class RequestParser:
    """Splits a client's byte stream into requests, independent of how it is cut into pieces.

    llhttp (in httptools) rejects bare LF, folded headers, and conflicting or repeated lengths. The
    stricter checks are made here.

    `check_body` raises HttpError if the body that follows a head must not be sent. It is not called
    for a request without a body or with a small one. A request for which `streams` returns True is
    complete with its head, and has its body as a stream, which may be longer than `max_body`.
    """

    def __init__(
        self,
        limits: Limits,
        check_body: Callable[[Request], None] | None = None,
        streams: Callable[[Request], bool] | None = None,
    ) -> None:
        self._limits = limits
        self._check_body = check_body
        self._streams = streams
        self._stream: BodyStream | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._part: bytes | bytearray
        self._complete: list[Request | HttpError] = []
        self._error: HttpError | None = None
        self._bytes_since_event = 0
        self._had_event = False
        self._upgrade_offered = False  # the request offers a protocol upgrade
        self.stage = Stage.IDLE
        self.partial = 0
        """Bytes of the incomplete body."""
        self.expects_continue = False
        """The client waits for a 100 (Continue) before it sends the body."""
        self.head: Request | None = None
        """The head of the incomplete request; None until the head is complete."""
        self.accepted = False
        """`check_body` has accepted the body of the incomplete request."""
        self._begin()

    @property
    def occupied(self) -> int:
        """Bytes of memory that the incomplete request occupies."""
        if self.stage is Stage.IDLE:
            return 0
        # _head_size lacks the line that is incomplete, the other count lacks earlier ones.
        size = max(self._head_size, self._bytes_since_event) + self.partial + REQUEST_OVERHEAD
        return size + len(self._headers) * HEADER_OVERHEAD

    def feed(self, data: bytes) -> list[Request | HttpError]:
        """Return the requests that `data` completes, in order.

        If an HttpError is among them, it is the last item, and the parser must not be fed again.
        """
        self._had_event = False
        self._parse(data)
        # Header values, trailers and chunk extensions grow inside llhttp without a callback. More
        # bytes without one than a head may have are too many.
        self._bytes_since_event = 0 if self._had_event else self._bytes_since_event + len(data)
        if self._bytes_since_event > self._limits.max_head and self._error is None:
            self._complete.append(self._too_large_head())
        complete = self._complete
        self._complete = []
        return complete

    def release(self) -> None:
        """Free the incomplete request; the parser must not be fed again.

        It and llhttp's object refer to each other, so that their memory would otherwise stay until
        the next run of the garbage collector.
        """
        self._begin()
        self.stage = Stage.IDLE
        del self._parser

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # HTTP allows a server to ignore Upgrade, and this one does. llhttp would treat the
                # body as bytes of the other protocol, so it is fed the head again without Upgrade.
                head = self._head_without_upgrade()
                self._upgrade_offered = False
                self._parser = httptools.HttpRequestParser(self)
                data = head + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                self._error = self._error or HttpError(
                    400, "bad_request", f"invalid HTTP/1.1 request: {error}"
                )
                self._complete.append(self._error)
                return
            else:
                return

    # httptools callbacks.

    def on_message_begin(self) -> None:
        """Start a request."""
        self._begin()
        self.stage = Stage.HEAD

    def on_url(self, url: bytes) -> None:
        """Append a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, or count a trailer."""
        limits = self._limits
        line = len(name) + len(value) + 4
        self._head_size += line
        if (
            line > limits.max_line
            or self._head_size > limits.max_head
            or len(self._headers) >= limits.max_headers
        ):
            self._reject(self._too_large_head())
        if b"_" in name:
            # CGI, WSGI and others read it as a hyphen: X_Api_Key would pass for X-Api-Key.
            self._bad_request("the name of a header contains an underscore, use a hyphen")
        if self.stage is Stage.HEAD:  # trailers are only counted
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check the complete head."""
        self._had_event = True
        parser = self._parser
        method: bytes = parser.get_method()
        if method == b"CONNECT":
            self._bad_request("CONNECT is not supported")
        if parser.should_upgrade():
            self._upgrade_offered = True
            return
        version: str = parser.get_http_version()
        request_line = len(method) + len(self._target) + len(b"  HTTP/1.1\r\n")
        if self._head_size + request_line + 1 > self._limits.max_head:
            self._reject(self._too_large_head())
        if request_line > self._limits.max_line:
            self._reject(
                HttpError(
                    414, "uri_too_long", f"request line exceeds {self._limits.max_line} bytes"
                )
            )
        if version not in {"1.1", "1.0"}:
            self._bad_request("unsupported HTTP version, expected HTTP/1.1 or HTTP/1.0")
        target, authority = self._origin_form(method, self._target)
        self.head = self._request = Request(
            method=method,
            target=target,
            headers=self._headers,
            http11=version == "1.1",
            keep_alive=parser.should_keep_alive(),
        )
        may_be_large = self._check_headers(self._request)
        self._check_host(self._request, authority)
        if may_be_large and self._check_body:
            try:
                self._check_body(self._request)
            except HttpError as error:
                self._reject(error)
            self.accepted = True
        self.stage = Stage.BODY
        if may_be_large and self._is_streamed(self._request):
            length = int(value_of(self._headers, b"content-length") or 0)
            self._request.stream = self._stream = BodyStream(length)
            self._complete_request()

    def on_body(self, body: bytes) -> None:
        """Append a piece of the body, without chunk framing."""
        self._had_event = True
        self.expects_continue = False
        if self._stream:
            self._stream.append(body)
            return
        self.partial += len(body)
        if self.partial > self._limits.max_body:
            self._reject(self._too_large_body())
        if not self._part:
            self._part = body  # usually the whole body
        else:
            if isinstance(self._part, bytes):
                self._part = bytearray(self._part)
            self._part += body
        if len(self._part) >= _MIN_PART:
            self._end_part()

    def on_message_complete(self) -> None:
        """Complete the request."""
        self._had_event = True
        if self._upgrade_offered:
            return
        if self._stream:
            self._stream.complete = True
            self._stream = None
        else:
            self._end_part()
            self._request.parts = self._parts
            self._request.size = self.partial
            self._complete_request()
        self._begin()
        self.stage = Stage.IDLE

    def _complete_request(self) -> None:
        request = self._request
        request.overhead = self._head_size + len(self._headers) * HEADER_OVERHEAD + REQUEST_OVERHEAD
        self._complete.append(request)
        if len(self._complete) > MAX_PIPELINED:
            self._bad_request(f"more than {MAX_PIPELINED} requests at once")

    def _is_streamed(self, request: Request) -> bool:
        if self._streams is None or value_of(self._headers, b"content-length") is None:
            return False
        return self._streams(request)

    def _begin(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._head_size = 0
        self.head = None
        self._parts: list[bytes] = []
        self._part = b""  # the next part: one piece, or several that are joined
        self.partial = 0
        self.expects_continue = False
        self.accepted = False

    def _end_part(self) -> None:
        if self._part:
            self._parts.append(bytes(self._part))
            self._part = b""

    def _head_without_upgrade(self) -> bytes:
        parser = self._parser
        version = parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (parser.get_method(), self._target, version)]
        lines += [b"%s: %s\r\n" % pair for pair in self._headers if pair[0].lower() != b"upgrade"]
        return b"".join([*lines, b"\r\n"])

    def _check_headers(self, request: Request) -> bool:
        """Check length, coding and expectation. Return whether the body may be large."""
        large = False
        for name, value in request.headers:
            lower = name.lower()
            if lower == b"content-length":
                if int(value) > self._limits.max_body and not self._is_streamed(request):
                    self._reject(self._too_large_body())
                large = large or int(value) > _SMALL_BODY
            elif lower == b"transfer-encoding":
                if value.lower() != b"chunked" or not request.http11:
                    self._bad_request("unsupported Transfer-Encoding, expected chunked in HTTP/1.1")
                large = True
            elif lower == b"expect":
                if value.lower() != b"100-continue":
                    self._reject(
                        HttpError(
                            417, "expectation_failed", "unsupported Expect, expected 100-continue"
                        )
                    )
                # An HTTP/1.0 client would read a 100 as the response.
                self.expects_continue = request.http11
                large = large or request.http11
        return large

    def _check_host(self, request: Request, authority: bytes | None) -> None:
        hosts = [value for name, value in request.headers if name.lower() == b"host"]
        if not hosts and not request.http11:
            # The request is forwarded as HTTP/1.1, which requires a Host header.
            hosts = [authority or b""]
            request.headers.append((b"Host", hosts[0]))
        if len(hosts) != 1:
            self._bad_request("exactly one Host header is required")
        if not _HOST.fullmatch(hosts[0]):
            self._bad_request("invalid Host header")
        if authority is not None and authority.lower() != hosts[0].lower():
            self._bad_request("the Host header does not match the request target")

    def _origin_form(self, method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
        """Return the target's path and query, and its authority, None if it has none."""
        if b"#" in target:
            self._bad_request("the request target contains a fragment")
        if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
            return target, None
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            self._bad_request("invalid request target")
        authority, path = absolute.groups()
        return path if path.startswith(b"/") else b"/" + path, authority

    def _too_large_head(self) -> HttpError:
        limits = self._limits
        return HttpError(
            431,
            "headers_too_large",
            f"request headers exceed {limits.max_headers} headers, {limits.max_line} bytes in "
            f"one of them, or {limits.max_head} bytes in all",
        )

    def _too_large_body(self) -> HttpError:
        maximum = self._limits.max_body
        message = (
            f"request body exceeds {maximum} bytes (maxBodyBytes): send less, or raise the limit"
            if maximum
            else "no request body expected"
        )
        return HttpError(413, "body_too_large", message)

    def _bad_request(self, message: str) -> NoReturn:
        self._reject(HttpError(400, "bad_request", message))

    def _reject(self, error: HttpError) -> NoReturn:
        # An exception stops llhttp, but httptools raises an error of its own in its place.
        self._error = error
        raise error
