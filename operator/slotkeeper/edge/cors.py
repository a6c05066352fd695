"""Cross-origin resource sharing: a web page of any origin may send requests, as to llama-server.

Any origin is allowed because clients are distinguished by API keys, which a page must send itself,
and never by anything that a browser adds on its own. So CORS credentials are not allowed.
"""

from slotkeeper.edge.wait_headers import QUEUE_POSITION, WAIT_SECONDS
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Headers, Request, Response

_MAX_AGE = b"7200"  # browsers cache a preflight's response for this long at most
_EXPOSED = (
    b"Access-Control-Expose-Headers",
    b", ".join((QUEUE_POSITION, WAIT_SECONDS, b"Retry-After")),
)


def respond(exchange: Exchange, response: Response) -> None:
    """Send a response of our own with CORS headers."""
    response.headers += allow_origin_headers(exchange.request)
    exchange.respond(response)


def allow_origin_headers(request: Request) -> Headers:
    """Return the CORS headers for a response of our own."""
    origin = request.header(b"origin")
    if not origin:
        return []
    return [(b"Access-Control-Allow-Origin", origin), _EXPOSED, (b"Vary", b"Origin")]


def respond_with_error(exchange: Exchange, error: HttpError) -> None:
    """Send an error response with CORS headers."""
    respond(exchange, error.response())


def preflight(request: Request) -> Response:
    """Return the response to a preflight (OPTIONS) for a path that is served."""
    headers: Headers = [
        (b"Access-Control-Allow-Methods", b"GET, POST, OPTIONS"),
        (
            b"Access-Control-Allow-Headers",
            # "*" does not include Authorization.
            request.header(b"access-control-request-headers") or b"*",
        ),
        (b"Access-Control-Max-Age", _MAX_AGE),
    ]
    if not request.header(b"origin"):
        headers.append((b"Access-Control-Allow-Origin", b"*"))
    return Response(204, headers=headers)


def expose_headers(request: Request) -> Headers:
    """Return the header that a forwarded response needs in addition to llama-server's own CORS."""
    return [_EXPOSED] if request.header(b"origin") else []
