"""Discrete-event simulation of a server: slots, one queue, replicas, and a scaler."""

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
    """What a scaler can observe of a server at one moment."""

    sample: Sample
    """The metrics of its balancer."""
    current_replicas: int
    """Replicas, ready or not; without those that drain."""
    busy_slots: Sequence[int]
    """Busy slots of each ready one of them."""


class Scaler(Protocol):
    """A policy for the number of replicas."""

    @property
    def interval_seconds(self) -> float:
        """Seconds between two observations."""
        ...

    def desired_replicas(self, observation: Observation) -> int:
        """Return the desired number of replicas after an observation."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """The properties of the simulated replicas."""

    slots: int
    load_seconds: float
    """From a replica's creation until it is ready."""
    initial_replicas: int = 1
    """Replicas that are ready when the trace begins."""


@dataclass(slots=True)
class SimulationResult:
    """Queue waits and replicas of a simulated trace."""

    waits: list[float]
    """Seconds until each request got a slot, in order of arrival."""
    replica_seconds: float = 0.0
    """Total lifetime of all replicas: loading, ready and draining."""
    changes: list[tuple[float, int]] = field(default_factory=list)
    """Each change of the desired replicas: when, and the new number. The first is at 0."""
    seconds: float = 0.0
    """When the last request completed."""


@dataclass(slots=True, eq=False)
class _Replica:
    created: float
    ready: bool = False
    busy: int = 0
    draining: bool = False


class Simulation:
    """Runs a trace against a scaler; each request occupies a slot for its service time.

    As with the real balancer, requests are served first in, first out, by the replica with the
    fewest busy slots. A replica that is removed gets no new requests and completes its running
    ones. Loading replicas are removed first, then those with the fewest busy slots.
    """

    def __init__(self, model: ReplicaModel, scaler: Scaler) -> None:
        self._model = model
        self._scaler = scaler
        self._replicas = [_Replica(0.0, ready=True) for _ in range(model.initial_replicas)]
        self._queue: deque[tuple[int, TraceRequest]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_numbers = count()
        self._now = 0.0
        self._service_times = ServiceTimes()
        self._demand = DemandStatistics()
        self._busy = 0
        self._remaining = 0
        self._result = SimulationResult([])

    def run(self, requests: Sequence[TraceRequest]) -> SimulationResult:
        """Simulate all requests until the last one has completed."""
        result = self._result = SimulationResult(
            [0.0] * len(requests), changes=[(0.0, self._model.initial_replicas)]
        )
        self._remaining = len(requests)
        for number, request in enumerate(requests):
            self._schedule(request.at, partial(self._arrive, number, request))
        self._schedule(0.0, self._scale)
        while self._remaining:
            self._now, _, event = heapq.heappop(self._events)
            event()
            self._dispatch()
        for replica in self._replicas:
            self._add_lifetime(replica)
        result.seconds = self._now
        return result

    def _schedule(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._event_numbers), event))

    def _arrive(self, number: int, request: TraceRequest) -> None:
        self._queue.append((number, request))

    def _dispatch(self) -> None:
        while self._queue:
            replica = min(
                (each for each in self._replicas if each.ready and not each.draining),
                key=lambda each: each.busy,
                default=None,
            )
            if replica is None or replica.busy >= self._model.slots:
                break
            number, request = self._queue.popleft()
            self._result.waits[number] = self._now - request.at
            self._busy += 1
            replica.busy += 1
            self._service_times.started(self._now)
            self._schedule(self._now + request.service_seconds, partial(self._complete, replica))
        self._demand.record(self._busy + len(self._queue), self._now)

    def _complete(self, replica: _Replica) -> None:
        self._remaining -= 1
        self._busy -= 1
        replica.busy -= 1
        self._service_times.ended(self._now)
        self._remove_if_drained(replica)

    def _remove_if_drained(self, replica: _Replica) -> None:
        if replica.draining and not replica.busy:
            self._replicas.remove(replica)
            self._add_lifetime(replica)

    def _add_lifetime(self, replica: _Replica) -> None:
        self._result.replica_seconds += self._now - replica.created

    def _scale(self) -> None:
        self._schedule(self._now + self._scaler.interval_seconds, self._scale)
        current = [replica for replica in self._replicas if not replica.draining]
        desired = self._scaler.desired_replicas(self._observe(current))
        if desired != len(current):
            self._result.changes.append((self._now, desired))
        for _ in range(desired - len(current)):
            replica = _Replica(self._now)
            self._replicas.append(replica)
            self._schedule(self._now + self._model.load_seconds, partial(self._loaded, replica))
        removal_order = sorted(current, key=lambda each: (each.ready, each.busy))
        for replica in removal_order[: max(len(current) - desired, 0)]:
            replica.draining = True
            self._remove_if_drained(replica)

    def _loaded(self, replica: _Replica) -> None:
        replica.ready = True

    def _observe(self, current: Sequence[_Replica]) -> Observation:
        sample = Sample(
            at=self._now,
            busy_slots=self._busy,
            queued=len(self._queue),
            oldest_queued_seconds=self._now - self._queue[0][1].at if self._queue else 0.0,
            peak_demand=self._demand.peak(self._now),
            total_slots=self._model.slots * sum(each.ready for each in current),
            mean_demand=self._demand.mean(self._now),
            mean_service_seconds=self._service_times.mean_service_seconds(self._now),
        )
        return Observation(sample, len(current), [each.busy for each in current if each.ready])
