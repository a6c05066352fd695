"""Replicas that say nothing: asked for their /health, and set aside where that is late too."""

import asyncio
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from slotkeeper.balancer.upstream.replicas import ReplicaSet, ReplicaTimeouts
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.scheduling.stall import StallDetector

if TYPE_CHECKING:
    from slotkeeper.balancer.proxy.request import ProxiedRequest


class StallMonitor:
    """Looks at the requests in `active` once in a while.

    A long prompt may keep a llama-server from its /health as well: it is busy, not dead. So what
    runs there runs on, and new requests go elsewhere until it answers. One that streams tokens is
    never asked.
    """

    def __init__(
        self, replicas: ReplicaSet, active: AbstractSet["ProxiedRequest"], timeouts: ReplicaTimeouts
    ) -> None:
        self._replicas = replicas
        self._active = active
        self._timeouts = timeouts
        self._detectors: dict[str, StallDetector] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timeouts.stall_check, self._check)

    async def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
        asked = list(self._probes.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    def _check(self) -> None:
        self._timer = self._loop.call_later(self._timeouts.stall_check, self._check)
        now = self._loop.time()
        running: dict[str, dict[Hashable, int]] = {}
        for forward in self._active:
            if forward.reservation:
                got = forward.stats.sent_bytes + (forward.exchange.status > 0)
                running.setdefault(forward.reservation.replica.name, {})[forward] = got
        self._detectors = {
            name: self._detectors.get(name) or StallDetector(now)
            for name in running
            if self._replicas.in_rotation(name)
        }
        for name, silence in self._detectors.items():
            quiet = silence.observe(running[name], self._replicas.completed_count(name), now)
            if quiet >= self._timeouts.stall and name not in self._probes:
                self._probes[name] = self._loop.create_task(self._probe(name, silence))

    async def _probe(self, name: str, silence: StallDetector) -> None:
        try:
            since = silence.last_progress
            if await self._replicas.is_healthy(name):
                silence.last_progress = self._loop.time()
            elif self._detectors.get(name) is silence and silence.last_progress == since:
                self._replicas.eject(
                    name,
                    UpstreamFailure.STALLED,
                    "nothing came from it, and its /health does not answer",
                )
        finally:
            del self._probes[name]
