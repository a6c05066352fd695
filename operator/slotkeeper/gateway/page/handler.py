"""Serves the page: static files to everybody, the models' state to those with an API key.

The files contain no data, so that a browser can load them before its user enters an API key.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import JSON, Headers, Request, Response, json_response

STATIC = Path(__file__).parent / "static"
PREFIX = b"/page/"
STATE_PATH = b"/page/state.json"
CACHE_SECONDS = 1.0
"""For how long a state is sent again: many open pages cost no more than one."""

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_POLICY = (
    b"default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
    b"style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Only files from here, no inline scripts or styles, no frames. Trusted Types: the browser rejects
each assignment of text as HTML, so that a text from the cluster cannot become a script."""

SECURITY_HEADERS: Headers = [
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
]


@dataclass(frozen=True)
class _File:
    body: bytes
    content_type: bytes
    etag: bytes


class Page:
    """Responds to requests for the page.

    `authenticate` returns the name of a request's API key, or "" where none is required, and raises
    HttpError otherwise. `state` returns the JSON tree of the models that this key may use.
    """

    def __init__(
        self,
        authenticate: Callable[[Request], str],
        state: Callable[[str], object],
        now: Callable[[], float],
    ) -> None:
        self._authenticate = authenticate
        self._state = state
        self._now = now
        self._files = _load()
        self._states: dict[str, tuple[float, bytes]] = {}  # by key, the oldest first

    def respond(self, exchange: Exchange, path: bytes) -> bool:
        """Respond to a request for `path` if it is one of the page's; return whether it is."""
        if path != b"/" and not path.startswith(PREFIX):
            return False
        try:
            exchange.respond(self._response(exchange.request, path))
        except HttpError as error:
            exchange.respond_with_error(error)
        return True

    def _response(self, request: Request, path: bytes) -> Response:
        file = self._files.get(path)
        if file is None and path != STATE_PATH:
            raise HttpError(404, "not_found", "no such file of the page")
        if request.method not in {b"GET", b"HEAD"}:
            allow = [(b"Allow", b"GET, HEAD")]
            raise HttpError(405, "method_not_allowed", "the page is read-only", headers=allow)
        if file is None:
            return self._state_response(self._authenticate(request))
        headers = [*SECURITY_HEADERS, (b"Cache-Control", b"no-cache"), (b"ETag", file.etag)]
        if _matches(request.header(b"if-none-match"), file.etag):
            return Response(304, headers=headers)
        return Response(200, file.body, file.content_type, headers)

    def _state_response(self, key: str) -> Response:
        now = self._now()
        expires, body = self._states.get(key, (0.0, b""))
        if now >= expires:
            body = json_response(200, self._state(key)).body
            self._drop_expired(now)
            self._states[key] = now + CACHE_SECONDS, body
        return Response(200, body, JSON, [*SECURITY_HEADERS, (b"Cache-Control", b"no-store")])

    def _drop_expired(self, now: float) -> None:
        while self._states:
            key, (expires, _) = next(iter(self._states.items()))
            if now < expires:
                break
            del self._states[key]


def _load() -> dict[bytes, _File]:
    """Read the static files, by path. `index.html` is the page itself."""
    files = {}
    for path in sorted(STATIC.iterdir()):
        body = path.read_bytes()
        etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:16].encode()
        served = b"/" if path.name == "index.html" else PREFIX + path.name.encode()
        files[served] = _File(body, _TYPES[path.suffix], etag)
    return files


def _matches(header: bytes | None, etag: bytes) -> bool:
    """Whether If-None-Match names the tag, weakly compared (RFC 9110, section 13.1.2)."""
    tags = [tag.strip().removeprefix(b"W/") for tag in (header or b"").split(b",")]
    return etag in tags or tags == [b"*"]
