"""A server in simulated time: slots, one queue, replicas that load and drain, who scales them."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

from slotkeeper.scaling.sample import Sample
from slotkeeper.scheduling.demand import DemandStatistics
from slotkeeper.scheduling.service_times import ServiceTimes
from slotkeeper.simulation.trace import TraceRequest


@dataclass(frozen=True, slots=True)
class Observation:
    """What can be seen of a server at one moment."""

    sample: Sample
    """What its balancer says."""
    current: int
    """Replicas, ready or not; without those that drain."""
    busy: Sequence[int]
    """Busy slots of each ready one of them."""


class Scaler(Protocol):
    """Says how many replicas there should be."""

    @property
    def every(self) -> float:
        """Seconds between two looks."""
        ...

    def wanted(self, look: Observation) -> int:
        """How many replicas there should be after this look."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """What a replica is."""

    slots: int
    load_seconds: float
    """From its creation until it is ready."""
    first: int = 1
    """How many are ready when the trace begins."""


@dataclass(slots=True)
class Outcome:
    """What became of a trace."""

    waits: list[float]
    """Seconds until each call got a slot, in the order in which they came."""
    replica_seconds: float = 0.0
    """That replicas were there for: loading, ready and draining."""
    changes: list[tuple[float, int]] = field(default_factory=list)
    """When the number of replicas that are wanted changed, and to what; what it was first at 0."""
    seconds: float = 0.0
    """When the last call ended."""


@dataclass(slots=True, eq=False)
class _Replica:
    created: float
    ready: bool = False
    busy: int = 0
    closing: bool = False


class Simulation:
    """Plays calls against a scaler: each call keeps its slot for as long as it says.

    As the real balancer: first in, first out; the idlest replica serves; one that is to go takes
    no more and ends what it has. Of those that are to go the ones that load are first, then the
    idlest.
    """

    def __init__(self, replicas: ReplicaModel, scaler: Scaler) -> None:
        self._kind = replicas
        self._scaler = scaler
        self._there = [_Replica(0.0, ready=True) for _ in range(replicas.first)]
        self._waiting: deque[tuple[int, TraceRequest]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._now = 0.0
        self._turnover = ServiceTimes()
        self._demand = DemandStatistics()
        self._busy = 0
        self._left = 0
        self._outcome = Outcome([])

    def run(self, calls: Sequence[TraceRequest]) -> Outcome:
        """Play all calls until the last one has ended."""
        outcome = self._outcome = Outcome([0.0] * len(calls), changes=[(0.0, self._kind.first)])
        self._left = len(calls)
        for number, call in enumerate(calls):
            self._at(call.at, partial(self._arrive, number, call))
        self._at(0.0, self._look)
        while self._left:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
            self._fill()
        for replica in self._there:
            self._count(replica)
        outcome.seconds = self._now
        return outcome

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happen))

    def _arrive(self, number: int, call: TraceRequest) -> None:
        self._waiting.append((number, call))

    def _fill(self) -> None:
        while self._waiting:
            idlest = min(
                (one for one in self._there if one.ready and not one.closing),
                key=lambda one: one.busy,
                default=None,
            )
            if idlest is None or idlest.busy >= self._kind.slots:
                break
            number, call = self._waiting.popleft()
            self._outcome.waits[number] = self._now - call.at
            self._busy += 1
            idlest.busy += 1
            self._turnover.started(self._now)
            self._at(self._now + call.seconds, partial(self._end, idlest))
        self._demand.record(self._busy + len(self._waiting), self._now)

    def _end(self, replica: _Replica) -> None:
        self._left -= 1
        self._busy -= 1
        replica.busy -= 1
        self._turnover.ended(self._now)
        self._let_go(replica)

    def _let_go(self, replica: _Replica) -> None:
        if replica.closing and not replica.busy:
            self._there.remove(replica)
            self._count(replica)

    def _count(self, replica: _Replica) -> None:
        self._outcome.replica_seconds += self._now - replica.created

    def _look(self) -> None:
        self._at(self._now + self._scaler.every, self._look)
        staying = [replica for replica in self._there if not replica.closing]
        wanted = self._scaler.wanted(self._seen(staying))
        if wanted != len(staying):
            self._outcome.changes.append((self._now, wanted))
        for _ in range(wanted - len(staying)):
            replica = _Replica(self._now)
            self._there.append(replica)
            self._at(self._now + self._kind.load_seconds, partial(self._loaded, replica))
        in_turn = sorted(staying, key=lambda one: (one.ready, one.busy))
        for replica in in_turn[: max(len(staying) - wanted, 0)]:
            replica.closing = True
            self._let_go(replica)

    def _loaded(self, replica: _Replica) -> None:
        replica.ready = True

    def _seen(self, staying: Sequence[_Replica]) -> Observation:
        sample = Sample(
            at=self._now,
            busy_slots=self._busy,
            queued=len(self._waiting),
            oldest_queued_seconds=self._now - self._waiting[0][1].at if self._waiting else 0.0,
            peak_demand=self._demand.peak(self._now),
            total_slots=self._kind.slots * sum(one.ready for one in staying),
            mean_demand=self._demand.mean(self._now),
            mean_service_seconds=self._turnover.mean_service_seconds(self._now),
        )
        return Observation(sample, len(staying), [one.busy for one in staying if one.ready])
