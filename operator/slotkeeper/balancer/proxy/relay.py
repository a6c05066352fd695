"""Relaying requests from a standby to the leader.

A relayed request proves that it is from a balancer, and has the name of its API key, never the key.
"""

import logging
from dataclasses import dataclass
from typing import Self

from slotkeeper.balancer.access import KEY_NAME
from slotkeeper.balancer.election import peer_auth
from slotkeeper.balancer.election.peers import host_and_port
from slotkeeper.edge.access import PREEMPTIBLE
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request, encode_request_head

_log = logging.getLogger(__name__)

_HOPS = b"x-slotkeeper-hops"
_EXPECTED_HOPS = 2
_MAX_HOPS = 20
_MAX_IDLE = 64

LOOP_DELAY_SECONDS = 0.05
"""Delay before a looping request is relayed again: for the milliseconds of a handover, two
balancers may each consider the other one the leader."""

_READ_BY_LEADER = frozenset((b"x-priority", PREEMPTIBLE))
"""Headers that the leader reads, besides those that it forwards."""


@dataclass(frozen=True, slots=True)
class Leader:
    """The balancer that a standby relays to."""

    address: str
    """HOST:PORT that it serves clients on."""
    proof: bytes
    """This balancer's proof for it."""
    pool: Pool

    @classmethod
    def at(cls, address: str, proof: bytes) -> Self:
        """A leader that there are no connections to yet."""
        return cls(address, proof, Pool(*host_and_port(address), max_idle=_MAX_IDLE))


class RelayTarget:
    """The leader that requests are relayed to, if any."""

    def __init__(self) -> None:
        self.leader: Leader | None = None

    def set(self, address: str | None, proof: bytes) -> bool:
        """Set the leader's address, None: there is none. Return whether that is a change."""
        before = self.leader and (self.leader.address, self.leader.proof)
        if before == ((address, proof) if address else None):
            return False
        self.close()
        if address:
            self.leader = Leader.at(address, proof)
        return True

    def stop(self, address: str, reason: str) -> None:
        """Relay nothing to this address until it is known which balancer leads now."""
        if self.leader and self.leader.address == address:
            _log.warning("cannot relay to leader %s: %s", address, reason)
            self.close()

    def close(self) -> None:
        """Relay nothing."""
        if self.leader:
            self.leader.pool.close()
            self.leader = None


def is_relayed(request: Request) -> bool:
    """Whether a balancer has relayed the request, if `RequestAccess` has authenticated it."""
    return request.header(peer_auth.HEADER) is not None


def hop_count(request: Request) -> int:
    """Return how many balancers have relayed the request. Clients cannot set it."""
    value = request.header(_HOPS) if is_relayed(request) else None
    return int(value) if value and value.isdigit() and len(value) < 3 else 0


def is_looping(request: Request) -> bool:
    """Whether more balancers have relayed it than one standby and one that shuts down."""
    return hop_count(request) >= _EXPECTED_HOPS


def encode_relayed_head(
    request: Request, key_name: str | None, proof: bytes, forwarded: frozenset[bytes]
) -> bytes:
    """Return the head with which `request` is relayed.

    `forwarded`: names of the headers that are sent to llama-server. The headers between balancers
    are never among them: those of an earlier relay are replaced.
    """
    added = [(_HOPS, b"%d" % (hop_count(request) + 1)), (peer_auth.HEADER, proof)]
    if key_name is not None:
        added.append((KEY_NAME, key_name.encode("ascii", "replace")))
    return encode_request_head(request, forwarded | _READ_BY_LEADER, added)


def check_hops(request: Request) -> None:
    """Raise HttpError if so many balancers have relayed the request that none can be the leader."""
    if hop_count(request) >= _MAX_HOPS:
        raise HttpError(503, "no_leader", "no balancer is the leader", retry_after=1)
