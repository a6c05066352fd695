"""Probing of the Lease's holder by a standby, once a second."""

import asyncio
from dataclasses import dataclass
from enum import Enum

from slotkeeper.balancer.election import peer_auth
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.balancer.election.peers import Peer, host_and_port
from slotkeeper.bounded_json import parse
from slotkeeper.wire.http_get import get

_MAX_BYTES = 4 * 1024
"""Of a response to a probe, which has a hundred."""


@dataclass(frozen=True, slots=True)
class ElectionTimeouts:
    """Timeouts and intervals of the leader election, in seconds."""

    poll: float = 1.0
    """Between two probes of the holder."""
    response: float = 1.0
    """For its response."""
    retry: float = 0.2
    """After the first refused connection: the holder's process may be restarting."""
    unresponsive: float = 3.0
    """A holder that has not responded for this long loses the Lease."""
    lease_validity: float = 2.0
    """For how long a holder may assume after a check that it still is. Less than `unresponsive`, so
    that one whose process was suspended notices before it dispatches anything."""
    settle: float = 0.5
    """After a holder has died, for /slots to count what it had sent."""
    handover: float = 3.0
    """For another balancer to acquire a Lease that was released for it."""
    visibility: float = 2.0
    """Maximum wait for /slots to count everything that was sent, before the Lease is released."""
    api: float = 1.5
    """For a response of the API server. One that only drops packets must not keep the leader from
    dispatching."""


class ProbeResult(Enum):
    """The state of the holder after a probe."""

    LEADING = "it is the leader"
    RELEASED = "it has stopped dispatching, and cannot release the Lease"
    UNRESPONSIVE = "it may come back, is not the leader, or does not know this balancer yet"
    DEAD = "its process has ended"


class LeaderProbe:
    """Probes the holder, and keeps the results of earlier probes."""

    def __init__(self, auth: PeerAuth, timeouts: ElectionTimeouts) -> None:
        self._auth = auth
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self.reset()

    def reset(self) -> None:
        """Discard earlier results: the Lease has changed."""
        self._responded_at = self._loop.time()
        self._refused = 0

    async def probe(self, holder: Peer, *, candidate: bool) -> ProbeResult:
        """Probe the holder once. `candidate`: this balancer would succeed it."""
        timeouts = self._timeouts
        path = "/peer?candidate=true" if candidate else "/peer"
        headers = [(peer_auth.HEADER, self._auth.proof(holder.identity))]
        now = self._loop.time()
        try:
            host, port = host_and_port(holder.metrics)
            status, body = await get(
                host,
                port,
                path,
                seconds=timeouts.response,
                max_bytes=_MAX_BYTES,
                headers=headers,
            )
            response = parse(body, max_bytes=_MAX_BYTES) if status == 200 else {}
            # Another balancer may have got the address of one that has ended.
            refused = response.get("identity", holder.identity) != holder.identity
            leader = bool(response.get("leader"))
            released = bool(response.get("released"))
        except ConnectionRefusedError:
            refused = True
            leader = released = False
        except (OSError, ValueError, AttributeError):
            refused = leader = released = False
        self._refused = self._refused + 1 if refused else 0
        if leader and not refused:
            self._responded_at = now
            return ProbeResult.LEADING
        if released and not refused:
            return ProbeResult.RELEASED
        silent = self._loop.time() - self._responded_at >= timeouts.unresponsive
        return ProbeResult.DEAD if silent or self._refused > 1 else ProbeResult.UNRESPONSIVE
