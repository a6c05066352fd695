"""Replicas that say nothing: asked for their /health, and set aside where that is late too."""

import asyncio
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from slotkeeper.balancer.upstream.replicas import Patience, Replicas
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.scheduling.stall import StallDetector

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.request import Forward


class Stalls:
    """Looks at the requests in `active` once in a while.

    A long prompt may keep a llama-server from its /health as well: it is busy, not dead. So what
    runs there runs on, and new requests go elsewhere until it answers. One that streams tokens is
    never asked.
    """

    def __init__(
        self, replicas: Replicas, active: AbstractSet["Forward"], patience: Patience
    ) -> None:
        self._replicas = replicas
        self._active = active
        self._patience = patience
        self._silences: dict[str, StallDetector] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience.stall_look, self._look)

    async def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._patience.stall_look, self._look)
        now = self._loop.time()
        running: dict[str, dict[Hashable, int]] = {}
        for forward in self._active:
            if forward.claim:
                got = forward.stats.sent_bytes + (forward.exchange.status > 0)
                running.setdefault(forward.claim.replica.name, {})[forward] = got
        self._silences = {
            name: self._silences.get(name) or StallDetector(now)
            for name in running
            if self._replicas.in_use(name)
        }
        for name, silence in self._silences.items():
            quiet = silence.observe(running[name], self._replicas.answers(name), now)
            if quiet >= self._patience.stall and name not in self._asked:
                self._asked[name] = self._loop.create_task(self._ask(name, silence))

    async def _ask(self, name: str, silence: StallDetector) -> None:
        try:
            since = silence.since
            if await self._replicas.is_well(name):
                silence.since = self._loop.time()
            elif self._silences.get(name) is silence and silence.since == since:
                self._replicas.set_aside(
                    name,
                    UpstreamFailure.STALLED,
                    "nothing came from it, and its /health does not answer",
                )
        finally:
            del self._asked[name]
