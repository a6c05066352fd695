"""What the balancers say: one look a second at each, and what decisions must know of the past."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from slotkeeper.api.demand_report import DemandReport
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.demand.poll_schedule import PollSchedule, due_targets
from slotkeeper.reconcile.observe.pods import address, is_ready
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

POLL_SECONDS = 1.0

WARM_UP_SECONDS = 10.0
"""How long a balancer's first numbers may take before it is said that there are none."""

IDLE_MAX_AGE_SECONDS = 60.0
"""How old the numbers may be of those on which no replicas hang: a thousand of them take turns."""

CHANGES_SECONDS = 1800.0
"""How long a change is kept: no policy of behavior has a longer period."""

log = logging.getLogger(__name__)


class FetchDemand(Protocol):
    """What a balancer says at /autoscaling."""

    async def __call__(self, address: str, *, keep_alive: bool) -> DemandReport:
        """The report of the one at HOST:PORT, polled again in a second (`keep_alive`) or much
        later.

        Raises OSError or ValueError.
        """
        ...


@dataclass(frozen=True)
class ServerDemand:
    """The demand of a server at one moment, as its balancers reported it together."""

    sample: Sample
    busy_by_replica: Mapping[str, int] | None = None
    """Busy slots by replica (HOST:PORT), without idle replicas; None where it is not reported."""


@dataclass
class _Tracked:
    since: float
    addresses: tuple[str, ...] = ()
    schedule: PollSchedule = field(default_factory=PollSchedule)
    policy: Policy | None = None
    latest: ServerDemand | None = None
    history: History = field(default_factory=History)
    changes: tuple[Change, ...] = ()


class DemandTracker:
    """What is known of each server that is watched, as far back as its policy looks.

    Times are those of `now`. A balancer that cannot be read leaves a gap, never a zero.
    """

    def __init__(self, ask: FetchDemand, now: Callable[[], float]) -> None:
        self._balancer = ask
        self._now = now
        self._watched: dict[Key, _Tracked] = {}

    def track(self, key: Key, addresses: Iterable[str], policy: Policy | None = None) -> None:
        """Look at the balancers with these addresses (HOST:PORT) from now on.

        With a `policy`, what each look asks for by it is kept for decisions. Without one no
        replicas hang on it: looks are rarer once there are many such servers.
        """
        watched = self._watched.setdefault(key, _Tracked(self._now()))
        if watched.addresses != (known := tuple(addresses)):
            watched.addresses = known
            watched.schedule = PollSchedule()
        watched.policy = policy
        watched.schedule.urgent = policy is not None
        if policy is None:
            watched.history = History()
            watched.changes = ()

    def scaled(self, key: Key, replicas: int) -> None:
        """So many replicas were just added, or taken away (fewer than 0)."""
        watched = self._watched.get(key)
        if watched and replicas:
            now = self._now()
            recent = (one for one in watched.changes if one.at > now - CHANGES_SECONDS)
            watched.changes = (*recent, Change(now, replicas))

    def forget(self, key: Key) -> None:
        """Look no longer, and drop what is known."""
        self._watched.pop(key, None)

    def scaling_input(self, key: Key) -> ScalingInput:
        """What a decision is made of."""
        watched = self._watched.get(key)
        if watched is None:
            return ScalingInput()
        newest = watched.latest.sample if watched.latest else None
        return ScalingInput(newest, watched.history, watched.changes)

    def latest(self, key: Key) -> ServerDemand | None:
        """The last reading, unless it is too old to speak of now."""
        watched = self._watched.get(key)
        newest = watched.latest if watched else None
        if watched is None or newest is None:
            return None
        age = self._now() - newest.sample.at
        if age > (PEAK_WINDOW_SECONDS if watched.schedule.urgent else IDLE_MAX_AGE_SECONDS):
            return None
        return newest

    def is_warming_up(self, key: Key) -> bool:
        """Whether it is too early to say that there are no numbers."""
        watched = self._watched.get(key)
        if not watched:
            return True
        return watched.latest is None and self._now() - watched.since < WARM_UP_SECONDS

    async def poll(self, on_update: Callable[[Key], object] = lambda _: None) -> None:
        """Read every balancer that is due; `heard` is called with each server that was heard of.

        At once, since one without replicas answers when a request comes, or late in the look.
        """
        now = self._now()
        there = [(key, watched) for key, watched in self._watched.items() if watched.addresses]
        due = due_targets(there, lambda each: each[1].schedule, now)
        await asyncio.gather(*(self._look(*each, now, on_update) for each in due))

    async def _look(
        self, key: Key, watched: _Tracked, now: float, heard: Callable[[Key], object]
    ) -> None:
        said = await self._ask_all(watched, keep_alive=watched.schedule.urgent)
        watched.schedule.polled(now, answered=bool(said))
        newest = _merge(said, self._now())
        if newest is None:
            return
        watched.latest = newest
        if policy := watched.policy:
            watched.history = watched.history.record(
                newest.sample.at,
                policy.required_replicas(newest.sample),
                keep=policy.history_seconds,
            )
        if self._watched.get(key) is watched:
            heard(key)

    async def fetch_now(self, key: Key) -> ServerDemand | None:
        """What the balancers say at this moment, for what cannot wait for the next look."""
        watched = self._watched.get(key)
        said = await self._ask_all(watched, keep_alive=False) if watched else []
        return _merge(said, self._now())

    async def _ask_all(self, watched: _Tracked, *, keep_alive: bool) -> list[DemandReport]:
        asked = await asyncio.gather(
            *(self._ask(address, keep_alive=keep_alive) for address in watched.addresses)
        )
        return [reading for reading in asked if reading]

    async def _ask(self, address: str, *, keep_alive: bool) -> DemandReport | None:
        began = self._now()
        try:
            said = await self._balancer(address, keep_alive=keep_alive)
            if self._now() - began > PEAK_WINDOW_SECONDS:
                # This process stood still, and nobody knows for how long the answer lay there.
                return None
            return said
        except (OSError, ValueError) as error:
            log.debug("no numbers from %s: %r", address, error)
            return None


def addresses(balancer_pods: Iterable[Manifest]) -> list[str]:
    """Where the ready ones of these pods tell their numbers."""
    return sorted(address(pod, names.METRICS_PORT) for pod in balancer_pods if is_ready(pod))


def _merge(reports: Sequence[DemandReport], now: float) -> ServerDemand | None:
    # A standby reports only what it holds itself: without the leader's report the numbers would be
    # too low, and without a standby's the leader's are right but for a moment's requests.
    leader = next((report for report in reports if report.leader), None)
    if leader is None:
        return None
    # What a standby relays, the leader counts as its own.
    sample = Sample(
        at=now,
        busy_slots=sum(report.busy_slots for report in reports),
        queued=sum(report.queued for report in reports),
        oldest_queued_seconds=max(report.oldest_queued_seconds for report in reports),
        peak_demand=sum(report.peak_demand for report in reports),
        # At most one balancer counts slots: a standby has none to dispatch to.
        total_slots=max(report.total_slots for report in reports),
        mean_demand=leader.mean_demand,
        mean_service_seconds=leader.mean_service_seconds,
    )
    return ServerDemand(sample, leader.busy_by_replica)
