"""Cross-origin resource sharing: which web pages may send requests.

By default pages of any origin may, as to llama-server: clients are distinguished by API keys, which
a page must send itself, and never by anything that a browser adds on its own. So CORS credentials
are not allowed.
"""

from collections.abc import Container

from slotkeeper.edge.error_format import error_response
from slotkeeper.edge.wait_headers import QUEUE_POSITION, WAIT_SECONDS
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Header, Headers, Request, Response

_MAX_AGE = b"7200"  # browsers cache a preflight's response for this long at most
_EXPOSED = (
    b"Access-Control-Expose-Headers",
    b", ".join((QUEUE_POSITION, WAIT_SECONDS, b"Retry-After")),
)
_ALLOW_ORIGIN = b"Access-Control-Allow-Origin"
_VARY: Header = (b"Vary", b"Origin")


class CorsPolicy:
    """The origins whose pages may send requests; None: any."""

    __slots__ = ("allowed_origins",)

    def __init__(self, allowed_origins: Container[bytes] | None = None) -> None:
        self.allowed_origins = allowed_origins

    def respond(self, exchange: Exchange, response: Response) -> None:
        """Send a response of our own with CORS headers."""
        response.headers += self.allow_origin_headers(exchange.request)
        exchange.respond(response)

    def respond_with_error(self, exchange: Exchange, error: HttpError) -> None:
        """Send an error response with CORS headers."""
        self.respond(exchange, error_response(error, exchange.request.path))

    def allow_origin_headers(self, request: Request) -> Headers:
        """Return the CORS headers for a response of our own."""
        origin = request.header(b"origin")
        if not origin:
            return []
        if self.allowed_origins is not None and origin not in self.allowed_origins:
            return [_VARY]
        return [(_ALLOW_ORIGIN, origin), _EXPOSED, _VARY]

    def preflight(self, request: Request, methods: bytes = b"GET, POST, OPTIONS") -> Response:
        """Return the response to a preflight (OPTIONS) for a path that is served by `methods`."""
        headers: Headers = [
            (b"Access-Control-Allow-Methods", methods),
            (
                b"Access-Control-Allow-Headers",
                # "*" does not include Authorization.
                request.header(b"access-control-request-headers") or b"*",
            ),
            (b"Access-Control-Max-Age", _MAX_AGE),
        ]
        if self.allowed_origins is None and not request.header(b"origin"):
            headers.append((_ALLOW_ORIGIN, b"*"))
        return Response(204, headers=headers)


ANY_ORIGIN = CorsPolicy()
"""The balancer's policy."""


def expose_headers(request: Request) -> Headers:
    """Return the header that a forwarded response needs in addition to llama-server's own CORS."""
    return [_EXPOSED] if request.header(b"origin") else []
