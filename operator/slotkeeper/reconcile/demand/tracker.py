"""What the balancers say: one look a second at each, and what decisions must know of the past."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.demand.poll_schedule import Rhythm, chosen
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.reconcile.workqueue import Key
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

LOOK_SECONDS = 1.0

SETTLING_SECONDS = 10.0
"""How long a balancer's first numbers may take before it is said that there are none."""

TURN_SECONDS = 60.0
"""How old the numbers may be of those on which no replicas hang: a thousand of them take turns."""

CHANGES_SECONDS = 1800.0
"""How long a change is kept: no policy of behavior has a longer period."""

log = logging.getLogger(__name__)


class Ask(Protocol):
    """What a balancer says at /autoscaling."""

    async def __call__(self, address: str, *, again: bool) -> Any:
        """The JSON of the one at HOST:PORT, which is asked `again` in a second or else much later.

        Raises OSError or ValueError.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """What a server's balancer said at one moment."""

    sample: Sample
    leads: bool = True
    """The balancer hands out the slots."""
    busy: Mapping[str, int] | None = None
    """Slots that work by replica (HOST:PORT), of those that have any; None where it is not told."""


@dataclass
class _Watched:
    since: float
    addresses: tuple[str, ...] = ()
    rhythm: Rhythm = field(default_factory=Rhythm)
    policy: Policy | None = None
    newest: Reading | None = None
    history: History = field(default_factory=History)
    changes: tuple[Change, ...] = ()


class Demand:
    """What is known of each server that is watched, as far back as its policy looks.

    Times are those of `now`. A balancer that cannot be read leaves a gap, never a zero.
    """

    def __init__(self, ask: Ask, now: Callable[[], float]) -> None:
        self._balancer = ask
        self._now = now
        self._watched: dict[Key, _Watched] = {}

    def watch(self, key: Key, addresses: Iterable[str], policy: Policy | None = None) -> None:
        """Look at the balancers with these addresses (HOST:PORT) from now on.

        With a `policy`, what each look asks for by it is kept for decisions. Without one no
        replicas hang on it: looks are rarer once there are many such servers.
        """
        watched = self._watched.setdefault(key, _Watched(self._now()))
        if watched.addresses != (known := tuple(addresses)):
            watched.addresses = known
            watched.rhythm = Rhythm()
        watched.policy = policy
        watched.rhythm.urgent = policy is not None
        if policy is None:
            watched.history = History()
            watched.changes = ()

    def changed(self, key: Key, replicas: int) -> None:
        """So many replicas were just added, or taken away (fewer than 0)."""
        watched = self._watched.get(key)
        if watched and replicas:
            now = self._now()
            recent = (one for one in watched.changes if one.at > now - CHANGES_SECONDS)
            watched.changes = (*recent, Change(now, replicas))

    def forget(self, key: Key) -> None:
        """Look no longer, and drop what is known."""
        self._watched.pop(key, None)

    def known(self, key: Key) -> ScalingInput:
        """What a decision is made of."""
        watched = self._watched.get(key)
        if watched is None:
            return ScalingInput()
        newest = watched.newest.sample if watched.newest else None
        return ScalingInput(newest, watched.history, watched.changes)

    def newest(self, key: Key) -> Reading | None:
        """The last reading, unless it is too old to speak of now."""
        watched = self._watched.get(key)
        newest = watched.newest if watched else None
        if watched is None or newest is None:
            return None
        age = self._now() - newest.sample.at
        if age > (PEAK_WINDOW_SECONDS if watched.rhythm.urgent else TURN_SECONDS):
            return None
        return newest

    def is_settling(self, key: Key) -> bool:
        """Whether it is too early to say that there are no numbers."""
        watched = self._watched.get(key)
        if not watched:
            return True
        return watched.newest is None and self._now() - watched.since < SETTLING_SECONDS

    async def look(self, heard: Callable[[Key], object] = lambda _: None) -> None:
        """Read every balancer that is due; `heard` is called with each server that was heard of.

        At once, since one without replicas answers when a request comes, or late in the look.
        """
        now = self._now()
        there = [(key, watched) for key, watched in self._watched.items() if watched.addresses]
        due = chosen(there, lambda each: each[1].rhythm, now)
        await asyncio.gather(*(self._look(*each, now, heard) for each in due))

    async def _look(
        self, key: Key, watched: _Watched, now: float, heard: Callable[[Key], object]
    ) -> None:
        said = await self._ask_all(watched, again=watched.rhythm.urgent)
        watched.rhythm.looked(now, answered=bool(said))
        newest = _together(said, self._now())
        if newest is None:
            return
        watched.newest = newest
        if policy := watched.policy:
            watched.history = watched.history.record(
                newest.sample.at,
                policy.required_replicas(newest.sample),
                keep=policy.history_seconds,
            )
        if self._watched.get(key) is watched:
            heard(key)

    async def now(self, key: Key) -> Reading | None:
        """What the balancers say at this moment, for what cannot wait for the next look."""
        watched = self._watched.get(key)
        said = await self._ask_all(watched, again=False) if watched else []
        return _together(said, self._now())

    async def _ask_all(self, watched: _Watched, *, again: bool) -> list[Reading]:
        asked = await asyncio.gather(
            *(self._ask(address, again=again) for address in watched.addresses)
        )
        return [reading for reading in asked if reading]

    async def _ask(self, address: str, *, again: bool) -> Reading | None:
        began = self._now()
        try:
            said = await self._balancer(address, again=again)
            if self._now() - began > PEAK_WINDOW_SECONDS:
                # This process stood still, and nobody knows for how long the answer lay there.
                return None
            sample = Sample(
                at=self._now(),
                busy_slots=int(said["slots"]["busy"]),
                queued=int(said["waiting"]),
                oldest_queued_seconds=float(said["oldestWaitSeconds"]),
                peak_demand=int(said["peakDemand"]),
                total_slots=int(said["slots"]["total"]),
                # A balancer of an older release does not measure these.
                mean_demand=_number(said.get("meanDemand")),
                mean_service_seconds=_number(said.get("slotSeconds")),
            )
            return Reading(sample, bool(said["leads"]), said.get("busyByReplica"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("no numbers from %s: %r", address, error)
            return None


def addresses(balancer_pods: Iterable[Manifest]) -> list[str]:
    """Where the ready ones of these pods tell their numbers."""
    return sorted(address(pod, names.METRICS_PORT) for pod in balancer_pods if is_ready(pod))


def _number(said: Any) -> float | None:
    return None if said is None else float(said)


def _together(readings: Sequence[Reading], now: float) -> Reading | None:
    # One that stands by has only what it holds itself: without the one that leads its numbers would
    # be too low, and without its own the other's are right but for a moment's requests.
    leader = next((reading for reading in readings if reading.leads), None)
    if leader is None:
        return None
    # What one that stands by passes on, the other one counts as its own.
    samples = [reading.sample for reading in readings]
    leading = leader.sample
    sample = Sample(
        at=now,
        busy_slots=sum(sample.busy_slots for sample in samples),
        queued=sum(sample.queued for sample in samples),
        oldest_queued_seconds=max(sample.oldest_queued_seconds for sample in samples),
        peak_demand=sum(sample.peak_demand for sample in samples),
        # At most one counts them: those that stand by have none to hand out.
        total_slots=max(sample.total_slots for sample in samples),
        mean_demand=leading.mean_demand,
        mean_service_seconds=leading.mean_service_seconds,
    )
    return Reading(sample, busy=leader.busy)
