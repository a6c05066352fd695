"""Whether the balancer that holds the Lease is there: asked once a second."""

import asyncio
import json
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlencode

from slotkeeper.balancer.election.lease import Peer, host_and_port
from slotkeeper.wire.http_get import get


@dataclass(frozen=True, slots=True)
class ElectionTimeouts:
    """How the balancers deal with one another; seconds."""

    poll: float = 1.0
    """Between two questions to the holder."""
    response: float = 1.0
    """For its answer."""
    retry: float = 0.2
    """After the first time that nobody listened: its process may be starting anew."""
    unresponsive: float = 3.0
    """A holder that has not answered for so long has lost the Lease."""
    lease_validity: float = 2.0
    """For how long the holder may take it for granted that it is. Less than `silent`, so that one
    whose process stood still finds out before it hands out anything."""
    settle: float = 0.5
    """After a holder is gone, for what it has sent to be counted by /slots."""
    handover: float = 3.0
    """For another to take a Lease that was given back for it."""
    visibility: float = 2.0
    """The longest wait for /slots to count all that was sent, before the Lease is given back."""
    api: float = 1.5
    """For the API server to answer. One that only drops packets must not keep the holder from
    handing out slots."""


class ProbeResult(Enum):
    """What is known of the holder after a question."""

    LEADING = "it hands out the slots"
    UNRESPONSIVE = "it may come back, or says that it does not hand out slots"
    DEAD = "its process is gone"


class LeaderProbe:
    """Asks whoever holds the Lease, and remembers how that went."""

    def __init__(self, me: Peer, timeouts: ElectionTimeouts) -> None:
        self._me = me
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self.reset()

    def reset(self) -> None:
        """Another one is the holder, or a new fact is known of it."""
        self._answered_at = self._loop.time()
        self._refused = 0

    async def probe(self, holder: Peer, *, would_follow: bool) -> ProbeResult:
        """Ask it. `would_follow`: this balancer would take its place."""
        patience = self._timeouts
        path = "/peer"
        if would_follow:
            path += "?" + urlencode({"identity": self._me.identity})
        now = self._loop.time()
        try:
            host, port = host_and_port(holder.metrics)
            status, body = await get(host, port, path, seconds=patience.response)
            said = json.loads(body) if status == 200 else {}
            refused = said.get("identity", holder.identity) != holder.identity
            leads = bool(said.get("leader"))
        except ConnectionRefusedError:
            refused = True
            leads = False
        except (OSError, ValueError, AttributeError):
            refused = leads = False
        self._refused = self._refused + 1 if refused else 0
        if leads and not refused:
            self._answered_at = now
            return ProbeResult.LEADING
        silent = self._loop.time() - self._answered_at >= patience.unresponsive
        return ProbeResult.DEAD if silent or self._refused > 1 else ProbeResult.UNRESPONSIVE
