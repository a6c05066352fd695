"""What browsers ask before a web page of another origin may talk to us, as it may to llama-server.

Any page may: what is asked for is told apart by API keys, which a page must send itself, and never
by anything that a browser adds on its own. So no credentials in the sense of CORS are allowed.
"""

from slotkeeper.edge.wait_headers import QUEUE_POSITION, WAIT_SECONDS
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Headers, Request, Response

_MAX_AGE = b"7200"  # the most that browsers keep an answer
_EXPOSED = (
    b"Access-Control-Expose-Headers",
    b", ".join((QUEUE_POSITION, WAIT_SECONDS, b"Retry-After")),
)


def respond(exchange: Exchange, answer: Response) -> None:
    """Answer with something of our own that the page may read."""
    answer.headers += allow_origin_headers(exchange.request)
    exchange.respond(answer)


def allow_origin_headers(request: Request) -> Headers:
    """What an answer of our own needs for the page to read it."""
    origin = request.header(b"origin")
    if not origin:
        return []
    return [(b"Access-Control-Allow-Origin", origin), _EXPOSED, (b"Vary", b"Origin")]


def respond_with_error(exchange: Exchange, refusal: HttpError) -> None:
    """Refuse in a way that the page may read."""
    respond(exchange, refusal.response())


def preflight(request: Request) -> Response:
    """The answer to an OPTIONS on a path that is served."""
    headers: Headers = [
        (b"Access-Control-Allow-Methods", b"GET, POST, OPTIONS"),
        (
            b"Access-Control-Allow-Headers",
            # "*" would leave out Authorization.
            request.header(b"access-control-request-headers") or b"*",
        ),
        (b"Access-Control-Max-Age", _MAX_AGE),
    ]
    if not request.header(b"origin"):
        headers.append((b"Access-Control-Allow-Origin", b"*"))
    return Response(204, headers=headers)


def expose_headers(request: Request) -> Headers:
    """What an answer that is passed on needs beside llama-server's own headers of this kind."""
    return [_EXPOSED] if request.header(b"origin") else []
