"""Whether the balancer that holds the Lease is there: asked once a second."""

import asyncio
import json
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlencode

from slotkeeper.balancer.election.lease import Peer, host_and_port
from slotkeeper.wire.http_get import get


@dataclass(frozen=True, slots=True)
class Patience:
    """How the balancers deal with one another; seconds."""

    ask: float = 1.0
    """Between two questions to the holder."""
    answer: float = 1.0
    """For its answer."""
    ask_again: float = 0.2
    """After the first time that nobody listened: its process may be starting anew."""
    silent: float = 3.0
    """A holder that has not answered for so long has lost the Lease."""
    sure: float = 2.0
    """For how long the holder may take it for granted that it is. Less than `silent`, so that one
    whose process stood still finds out before it hands out anything."""
    settle: float = 0.5
    """After a holder is gone, for what it has sent to be counted by /slots."""
    hand_over: float = 3.0
    """For another to take a Lease that was given back for it."""
    settling: float = 2.0
    """The longest wait for /slots to count all that was sent, before the Lease is given back."""
    api: float = 1.5
    """For the API server to answer. One that only drops packets must not keep the holder from
    handing out slots."""


class Answer(Enum):
    """What is known of the holder after a question."""

    LEADS = "it hands out the slots"
    SILENT = "it may come back, or says that it does not hand out slots"
    DEAD = "its process is gone"


class Holder:
    """Asks whoever holds the Lease, and remembers how that went."""

    def __init__(self, me: Peer, patience: Patience) -> None:
        self._me = me
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self.anew()

    def anew(self) -> None:
        """Another one is the holder, or a new fact is known of it."""
        self._answered_at = self._loop.time()
        self._refused = 0

    async def ask(self, holder: Peer, *, would_follow: bool) -> Answer:
        """Ask it. `would_follow`: this balancer would take its place."""
        patience = self._patience
        path = "/peer"
        if would_follow:
            path += "?" + urlencode({"identity": self._me.identity})
        now = self._loop.time()
        try:
            host, port = host_and_port(holder.metrics)
            status, body = await get(host, port, path, seconds=patience.answer)
            said = json.loads(body) if status == 200 else {}
            refused = said.get("identity", holder.identity) != holder.identity
            leads = bool(said.get("leads"))
        except ConnectionRefusedError:
            refused = True
            leads = False
        except (OSError, ValueError, AttributeError):
            refused = leads = False
        self._refused = self._refused + 1 if refused else 0
        if leads and not refused:
            self._answered_at = now
            return Answer.LEADS
        silent = self._loop.time() - self._answered_at >= patience.silent
        return Answer.DEAD if silent or self._refused > 1 else Answer.SILENT
