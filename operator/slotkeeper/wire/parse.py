"""Bytes -> requests. Strict: whatever two parsers might read differently is refused."""

import re
from collections.abc import Callable
from enum import Enum
from typing import NoReturn

import httptools

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.message import Headers, Request

MAX_HEADERS = 128

_SMALL = 16 * 1024
"""Bytes of a body that is read without asking whether it may come."""

# Bytes from which on a part of a body stays as it is. Smaller ones are put together, since each
# costs as much memory beside as a part of the smallest does: a client may send chunks of one byte.
_PART = 64 * 1024
# A name or an address, and a port. Empty says that the target has no authority.
_HOST = re.compile(rb"(?:[\w.~%-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)


class Stage(Enum):
    """What the parser has of the request that it is reading."""

    IDLE = "nothing yet"
    HEAD = "a part of the head"
    BODY = "the head and a part of the body"


class RequestParser:
    """Cuts a client's bytes into requests, however they arrive in pieces.

    llhttp (in httptools) refuses bare LF, folded headers, conflicting and repeated lengths by
    itself; what it lets through and we do not is checked here.

    `admit` raises Refusal where the body must not come that follows a head. It is not asked where
    there is none, or a small one.
    """

    def __init__(self, limits: Limits, check_body: Callable[[Request], None] | None = None) -> None:
        self._limits = limits
        self._check_body = check_body
        self._parser = httptools.HttpRequestParser(self)
        self._complete: list[Request | HttpError] = []
        self._error: HttpError | None = None
        self._bytes_since_event = 0
        self._had_event = False
        self._upgrade_offered = False  # the request offers to switch protocols
        self.stage = Stage.IDLE
        self.partial = 0
        """Bytes of the body that is being read."""
        self.expects_continue = False
        """The client sends its body only after a 100."""
        self.head: Request | None = None
        """Of the request that is being read, once it is complete."""
        self._begin()

    def feed(self, data: bytes) -> list[Request | HttpError]:
        """The requests that `data` completes, in order.

        A Refusal is always the last one: the parser must not be fed again after it.
        """
        self._had_event = False
        self._parse(data)
        # Header values, trailers and chunk extensions grow inside llhttp without a sign. A
        # stretch without one that is longer than any head may be is too long.
        self._bytes_since_event = 0 if self._had_event else self._bytes_since_event + len(data)
        if self._bytes_since_event > self._limits.max_head and self._error is None:
            self._complete.append(self._too_large_head())
        complete = self._complete
        self._complete = []
        return complete

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # An offer to switch protocols may be ignored, and is. llhttp would take the body
                # for the other protocol's bytes: it gets the head again, without the offer.
                head = self._head_without_offer()
                self._upgrade_offered = False
                self._parser = httptools.HttpRequestParser(self)
                data = head + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                self._error = self._error or HttpError(
                    400, "bad_request", f"not a valid HTTP/1.1 request: {error}"
                )
                self._complete.append(self._error)
                return
            else:
                return

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self.stage = Stage.HEAD

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or a trailer."""
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._limits.max_head or len(self._headers) >= MAX_HEADERS:
            self._stop(self._too_large_head())
        if self.stage is Stage.HEAD:  # trailers are counted and dropped
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._had_event = True
        parser = self._parser
        method: bytes = parser.get_method()
        if method == b"CONNECT":
            self._bad("no tunnels are made here")
        if parser.should_upgrade():
            self._upgrade_offered = True
            return
        version: str = parser.get_http_version()
        if self._head_size + len(method) + len(self._target) + 13 > self._limits.max_head:
            self._stop(self._too_large_head())
        if version not in {"1.1", "1.0"}:
            self._bad("only HTTP/1.1 and HTTP/1.0 are spoken here")
        target, authority = self._origin_form(method, self._target)
        self.head = self._request = Request(
            method=method,
            target=target,
            headers=self._headers,
            http11=version == "1.1",
            keep_alive=parser.should_keep_alive(),
        )
        asks = self._check_headers(self._request)
        self._check_host(self._request, authority)
        if asks and self._check_body:
            try:
                self._check_body(self._request)
            except HttpError as refusal:
                self._stop(refusal)
        self.stage = Stage.BODY

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without chunk framing."""
        self._had_event = True
        self.expects_continue = False
        self.partial += len(body)
        if self.partial > self._limits.max_body:
            self._stop(self._too_large_body())
        self._pieces.append(body)
        self._piece_bytes += len(body)
        if self._piece_bytes >= _PART:
            self._put_together()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._had_event = True
        if self._upgrade_offered:
            return
        if self._pieces:
            self._put_together()
        self._request.parts = self._parts
        self._request.size = self.partial
        self._complete.append(self._request)
        self._begin()
        self.stage = Stage.IDLE

    def _begin(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._head_size = 0
        self.head = None
        self._parts: list[bytes] = []
        self._pieces: list[bytes] = []  # what is to become the next part
        self._piece_bytes = 0  # bytes in pieces
        self.partial = 0
        self.expects_continue = False

    def _put_together(self) -> None:
        self._parts.append(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        self._pieces = []
        self._piece_bytes = 0

    def _head_without_offer(self) -> bytes:
        parser = self._parser
        version = parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (parser.get_method(), self._target, version)]
        lines += [b"%s: %s\r\n" % pair for pair in self._headers if pair[0].lower() != b"upgrade"]
        return b"".join([*lines, b"\r\n"])

    def _check_headers(self, request: Request) -> bool:
        """Whether a body follows that is not small for sure."""
        large = False
        for name, value in request.headers:
            lower = name.lower()
            if lower == b"content-length":
                if int(value) > self._limits.max_body:
                    self._stop(self._too_large_body())
                large = large or int(value) > _SMALL
            elif lower == b"transfer-encoding":
                if value.lower() != b"chunked" or not request.http11:
                    self._bad("the only Transfer-Encoding taken is chunked, from HTTP/1.1 on")
                large = True
            elif lower == b"expect":
                if value.lower() != b"100-continue":
                    self._stop(
                        HttpError(
                            417, "expectation_failed", "the only Expect taken is 100-continue"
                        )
                    )
                # To an HTTP/1.0 client a 100 would look like the answer.
                self.expects_continue = request.http11
                large = large or request.http11
        return large

    def _check_host(self, request: Request, authority: bytes | None) -> None:
        hosts = [value for name, value in request.headers if name.lower() == b"host"]
        if not hosts and not request.http11:
            # It goes on as HTTP/1.1, which needs one.
            hosts = [authority or b""]
            request.headers.append((b"Host", hosts[0]))
        if len(hosts) != 1:
            self._bad("exactly one Host header is needed")
        if not _HOST.fullmatch(hosts[0]):
            self._bad("the Host header is no host")
        if authority is not None and authority.lower() != hosts[0].lower():
            self._bad("the target and the Host header name two hosts")

    def _origin_form(self, method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
        """The target's path and query, and its authority where it names one."""
        if b"#" in target:
            self._bad("the request's target has a fragment")
        if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
            return target, None
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            self._bad("the request's target is no path")
        authority, path = absolute.groups()
        return path if path.startswith(b"/") else b"/" + path, authority

    def _too_large_head(self) -> HttpError:
        limit = self._limits.max_head
        return HttpError(431, "headers_too_large", f"headers are limited to {limit} bytes")

    def _too_large_body(self) -> HttpError:
        limit = self._limits.max_body
        return HttpError(413, "body_too_large", f"a request's body is limited to {limit} bytes")

    def _bad(self, message: str) -> NoReturn:
        self._stop(HttpError(400, "bad_request", message))

    def _stop(self, refusal: HttpError) -> NoReturn:
        # llhttp stops at an exception, which it hides behind one of its own.
        self._error = refusal
        raise refusal
