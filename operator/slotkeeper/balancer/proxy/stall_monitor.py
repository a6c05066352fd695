"""Ejection of replicas that stall: no bytes on any request, and no response from /health."""

import asyncio
from collections.abc import Hashable
from collections.abc import Set as AbstractSet

from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.upstream.replicas import ReplicaSet, ReplicaTimeouts
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.scheduling.stall import StallDetector


class StallMonitor:
    """Checks the progress of the requests in `active` periodically.

    A long prompt may keep llama-server from serving /health too: it is busy, not dead. So running
    requests continue, and new ones go elsewhere until /health responds. The /health of a replica
    that streams tokens is never requested.
    """

    def __init__(
        self, replicas: ReplicaSet, active: AbstractSet[ProxiedRequest], timeouts: ReplicaTimeouts
    ) -> None:
        self._replicas = replicas
        self._active = active
        self._timeouts = timeouts
        self._detectors: dict[str, StallDetector] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timeouts.stall_check, self._check)

    async def close(self) -> None:
        """Stop the checks."""
        self._timer.cancel()
        probes = list(self._probes.values())
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _check(self) -> None:
        self._timer = self._loop.call_later(self._timeouts.stall_check, self._check)
        now = self._loop.time()
        progress: dict[str, dict[Hashable, int]] = {}
        for request in self._active:
            if request.reservation:
                received = request.stats.sent_bytes + (request.exchange.status > 0)
                progress.setdefault(request.reservation.replica.name, {})[request] = received
        self._detectors = {
            name: self._detectors.get(name) or StallDetector(now)
            for name in progress
            if self._replicas.in_rotation(name)
        }
        for name, detector in self._detectors.items():
            stalled = detector.observe(progress[name], self._replicas.completed_count(name), now)
            if stalled >= self._timeouts.stall and name not in self._probes:
                self._probes[name] = self._loop.create_task(self._probe(name, detector))

    async def _probe(self, name: str, detector: StallDetector) -> None:
        try:
            last_progress = detector.last_progress
            if await self._replicas.is_healthy(name):
                detector.last_progress = self._loop.time()
            elif self._detectors.get(name) is detector and detector.last_progress == last_progress:
                self._replicas.eject(
                    name,
                    UpstreamFailure.STALLED,
                    "no bytes from it, and no response from its /health",
                )
        finally:
            del self._probes[name]
