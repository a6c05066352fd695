"""What the balancers say: one look a second at each, kept for as long as a decision needs it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import httpx

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.pods import is_ready
from slotkeeper.reconcile.queue import Key
from slotkeeper.reconcile.rhythm import Rhythm, chosen
from slotkeeper.scaling.decide import LATCH_SECONDS, Sample

LOOK_SECONDS = 1.0

SETTLING_SECONDS = 10.0
"""How long a balancer's first numbers may take before it is said that there are none."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What a server's balancer said at one moment."""

    sample: Sample
    total: int
    """Slots of the ready replicas."""
    leads: bool = True
    """The balancer hands out the slots."""


@dataclass
class _Watched:
    since: float
    addresses: tuple[str, ...]
    rhythm: Rhythm = field(default_factory=Rhythm)
    readings: deque[Reading] = field(default_factory=deque)


class Demand:
    """The numbers of the last `keep_seconds`, of each server that is watched.

    Times are those of `now`. A balancer that cannot be read leaves a gap, never a zero.
    """

    def __init__(
        self, client: httpx.AsyncClient, now: Callable[[], float], keep_seconds: float
    ) -> None:
        self._client = client
        self._now = now
        self._keep = keep_seconds
        self._watched: dict[Key, _Watched] = {}

    def watch(self, key: Key, addresses: Iterable[str], *, scaled: bool = True) -> None:
        """Look at the balancers with these addresses (HOST:PORT) from now on.

        Where no replicas hang on it, since the server is not `scaled` by demand, looks are rarer
        once there are many such servers.
        """
        watched = self._watched.setdefault(key, _Watched(self._now(), ()))
        if watched.addresses != (known := tuple(addresses)):
            watched.addresses, watched.rhythm = known, Rhythm()
        watched.rhythm.urgent = scaled

    def forget(self, key: Key) -> None:
        """Look no longer, and drop what is known."""
        self._watched.pop(key, None)

    def samples(self, key: Key) -> Sequence[Sample]:
        """What is known, in order of time."""
        watched = self._watched.get(key)
        return [reading.sample for reading in watched.readings] if watched else []

    def newest(self, key: Key) -> Reading | None:
        """The last reading, unless it is too old to speak of now."""
        watched = self._watched.get(key)
        if not watched or not watched.readings:
            return None
        newest = watched.readings[-1]
        return newest if self._now() - newest.sample.at <= LATCH_SECONDS else None

    def is_settling(self, key: Key) -> bool:
        """Whether it is too early to say that there are no numbers."""
        watched = self._watched.get(key)
        if not watched:
            return True
        return not watched.readings and self._now() - watched.since < SETTLING_SECONDS

    async def look(self) -> None:
        """Read every balancer that is due."""
        now = self._now()
        there = [watched for watched in self._watched.values() if watched.addresses]
        due = chosen(there, lambda watched: watched.rhythm, now)
        await asyncio.gather(*(self._look(watched, now) for watched in due))

    async def _look(self, watched: _Watched, now: float) -> None:
        asked = await asyncio.gather(*map(self._ask, watched.addresses))
        said = [reading for reading in asked if reading]
        watched.rhythm.looked(now, answered=bool(said))
        # One that stands by has only what it holds itself: without the one that leads its numbers
        # would be too low, and without its own the other's are right but for a moment's requests.
        if not any(reading.leads for reading in said):
            return
        readings = watched.readings
        readings.append(_together(said, self._now()))
        # One reading from before the window stays: it says that the window is whole.
        start = self._now() - self._keep
        while len(readings) > 1 and readings[1].sample.at <= start:
            readings.popleft()

    async def _ask(self, address: str) -> Reading | None:
        try:
            response = await self._client.get(f"http://{address}/autoscaling")
            said = response.raise_for_status().json()
            sample = Sample(
                at=self._now(),
                busy=int(said["slots"]["busy"]),
                waiting=int(said["waiting"]),
                oldest_wait=float(said["oldestWaitSeconds"]),
                peak=int(said["peakDemand"]),
            )
            return Reading(sample, int(said["slots"]["total"]), leads=bool(said["leads"]))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.debug("no numbers from %s: %r", address, error)
            return None


def addresses(balancer_pods: Iterable[Manifest]) -> list[str]:
    """Where the ready ones of these pods tell their numbers."""
    hosts = [pod["status"]["podIP"] for pod in balancer_pods if is_ready(pod)]
    return [
        f"{f'[{host}]' if ':' in host else host}:{names.METRICS_PORT}" for host in sorted(hosts)
    ]


def _together(readings: Sequence[Reading], now: float) -> Reading:
    samples = [reading.sample for reading in readings]
    sample = Sample(
        at=now,
        busy=sum(sample.busy for sample in samples),
        waiting=sum(sample.waiting for sample in samples),
        oldest_wait=max(sample.oldest_wait for sample in samples),
        peak=sum(sample.peak for sample in samples),
    )
    # At most one counts them: those that stand by have none to hand out.
    return Reading(sample, total=max(reading.total for reading in readings))
