"""What one balancer tells another with a request that it passes on to it."""

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, encode_request_head

_HOPS = b"x-slotkeeper-hops"
_EXPECTED_HOPS = 2
_MAX_HOPS = 20

LOOP_DELAY_SECONDS = 0.05
"""Before a request is passed on that goes round in circles: for the milliseconds of a change, two
balancers may take each other for the one that leads."""

OWN_HEADERS = frozenset((_HOPS,))
"""What is between balancers, and not for llama-server."""


def hop_count(request: Request) -> int:
    """How many balancers have passed the request on already."""
    value = request.header(_HOPS)
    return int(value) if value and value.isdigit() and len(value) < 3 else 0


def is_looping(request: Request) -> bool:
    """It was passed on more often than a balancer that stands by and one that ends explain."""
    return hop_count(request) >= _EXPECTED_HOPS


def encode_relayed_head(request: Request) -> bytes:
    """The head with which `request` is passed on to another balancer."""
    count = hop_count(request) + 1
    return encode_request_head(request, OWN_HEADERS, [(b"X-Slotkeeper-Hops", b"%d" % count)])


def check(request: Request) -> None:
    """Raises Refusal where no balancer seems to lead."""
    if hop_count(request) >= _MAX_HOPS:
        raise HttpError(503, "no_leader", "no balancer hands out slots", retry_after=1)
