"""Relaying requests from a standby to the leader."""

from dataclasses import dataclass
from typing import Self

from slotkeeper.balancer.access import FORWARDED
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, encode_request_head

_HOPS = b"x-slotkeeper-hops"
_EXPECTED_HOPS = 2
_MAX_HOPS = 20
_MAX_IDLE = 64

LOOP_DELAY_SECONDS = 0.05
"""Delay before a looping request is relayed again: for the milliseconds of a handover, two
balancers may each consider the other one the leader."""

_RELAYED = FORWARDED | {b"authorization", b"x-api-key", b"x-priority"}
"""Headers that the leader reads or forwards."""


@dataclass(frozen=True, slots=True)
class Leader:
    """The balancer that a standby relays to."""

    address: str
    """HOST:PORT that it serves clients on."""
    pool: Pool

    @classmethod
    def at(cls, address: str) -> Self:
        """A leader that there are no connections to yet."""
        host, _, port = address.rpartition(":")
        return cls(address, Pool(host.strip("[]"), int(port), max_idle=_MAX_IDLE))


def hop_count(request: Request) -> int:
    """Return how many balancers have relayed the request."""
    value = request.header(_HOPS)
    return int(value) if value and value.isdigit() and len(value) < 3 else 0


def is_looping(request: Request) -> bool:
    """Whether more balancers have relayed it than one standby and one that shuts down."""
    return hop_count(request) >= _EXPECTED_HOPS


def encode_relayed_head(request: Request) -> bytes:
    """Return the head with which `request` is relayed."""
    count = hop_count(request) + 1
    return encode_request_head(request, _RELAYED, [(b"X-Slotkeeper-Hops", b"%d" % count)])


def check_hops(request: Request) -> None:
    """Raise HttpError if so many balancers have relayed the request that none can be the leader."""
    if hop_count(request) >= _MAX_HOPS:
        raise HttpError(503, "no_leader", "no balancer is the leader", retry_after=1)
