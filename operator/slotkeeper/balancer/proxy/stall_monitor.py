"""Ejection of replicas that stall: no bytes on any request, and no other sign of life."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet

from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.upstream.replicas import ReplicaSet, ReplicaTimeouts, Unresponsive
from slotkeeper.scheduling.ejection import UpstreamFailure
from slotkeeper.scheduling.stall import StallDetector, Verdict

_FAILURES = {
    Verdict.STALLED: (
        UpstreamFailure.STALLED,
        "no bytes from it, and no response from its /health",
    ),
    Verdict.WEDGED: (
        UpstreamFailure.WEDGED,
        "no bytes from it, and no response from its /slots, though its /health responds",
    ),
}


class StallMonitor:
    """Checks the progress of the requests in `active` periodically.

    A replica gives three signs of life: bytes of responses, /slots and /health. A long prompt may
    keep llama-server from serving the other two: it is busy, not dead. So a stalled replica gets no
    new requests until it responds, and its running requests continue. Those that have no byte of
    their response fail by `on_unresponsive` after two minutes without any sign of life. The /health
    of a replica that streams tokens is never requested.
    """

    def __init__(
        self,
        replicas: ReplicaSet,
        active: AbstractSet[ProxiedRequest],
        timeouts: ReplicaTimeouts,
        on_unresponsive: Callable[[Sequence[ProxiedRequest], str], None],
    ) -> None:
        self._replicas = replicas
        self._active = active
        self._timeouts = timeouts
        self._on_unresponsive = on_unresponsive
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
            if self._replicas.is_watched(name)
        }
        for name, detector in self._detectors.items():
            stalled = detector.observe(progress[name], self._replicas.completed_count(name), now)
            if stalled >= self._timeouts.stall and name not in self._probes:
                self._probes[name] = self._loop.create_task(self._probe(name, detector))
        for name, found in self._replicas.unresponsive.items():
            silent = now - found.since >= self._timeouts.unresponsive
            wedged = now - found.idle_since >= self._timeouts.wedged
            if name in progress and (silent or wedged):
                self._fail_waiting(name, found.reason)

    def _fail_waiting(self, name: str, reason: str) -> None:
        waiting = [
            each for each in self._active if each.is_running_on(name) and not each.response_started
        ]
        if waiting:
            self._on_unresponsive(waiting, reason)

    async def _probe(self, name: str, detector: StallDetector) -> None:
        try:
            last_progress = detector.last_progress
            health, slots = await asyncio.gather(
                self._replicas.responds(name, "/health"), self._replicas.responds(name, "/slots")
            )
            if self._detectors.get(name) is not detector:
                return
            if detector.last_progress != last_progress:
                return
            verdict = detector.judge(
                health=health, slots=slots, wedged=self._timeouts.wedged, now=self._loop.time()
            )
            if verdict in _FAILURES:
                failure, reason = _FAILURES[verdict]
                # Its /health may have responded since, in a long batch.
                found = Unresponsive(reason, last_progress, detector.last_life)
                self._replicas.set_unresponsive(name, failure, found)
        finally:
            del self._probes[name]
