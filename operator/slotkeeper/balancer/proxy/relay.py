"""What one balancer tells another with a request that it passes on to it."""

from slotkeeper.wire.errors import Refusal
from slotkeeper.wire.message import Request, request_bytes

_RELAYED = b"x-slotkeeper-relayed"
_USUAL = 2
_MOST = 20

CALM_SECONDS = 0.05
"""Before a request is passed on that goes round in circles: for the milliseconds of a change, two
balancers may take each other for the one that leads."""

OWN_HEADERS = frozenset((_RELAYED,))
"""What is between balancers, and not for llama-server."""


def times_relayed(request: Request) -> int:
    """How many balancers have passed the request on already."""
    value = request.header(_RELAYED)
    return int(value) if value and value.isdigit() and len(value) < 3 else 0


def wanders(request: Request) -> bool:
    """It was passed on more often than a balancer that stands by and one that ends explain."""
    return times_relayed(request) >= _USUAL


def relayed_bytes(request: Request) -> bytes:
    """The head with which `request` is passed on to another balancer."""
    count = times_relayed(request) + 1
    return request_bytes(request, OWN_HEADERS, [(b"X-Slotkeeper-Relayed", b"%d" % count)])


def check(request: Request) -> None:
    """Raises Refusal where no balancer seems to lead."""
    if times_relayed(request) >= _MOST:
        raise Refusal(503, "no_active_balancer", "no balancer hands out slots", retry_after=1)
