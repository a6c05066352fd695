"""Parameter sweep: every system with each of its settings, on every trace."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice, product
from math import ceil

from bench.autoscale.oracle import oracle_seconds
from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.simulation.generate import generate
from slotkeeper.simulation.reference_policies import REFERENCE_POLICIES, PolicyBounds
from slotkeeper.simulation.report import percentile, share_within
from slotkeeper.simulation.simulate import Observation, ReplicaModel, Scaler, Simulation
from slotkeeper.simulation.slotkeeper_policy import SlotkeeperScaler

SLOTKEEPER = "slotkeeper"
SCHEDULED = "slotkeeper, schedules"
"""The same scaler, with `schedules` set to the times of the bursts."""
FIXED = "fixed"
SLOTS = 4
MAX_REPLICAS = 40
SEED = 1
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)

_SCALE_DOWN_SECONDS = (15, 60, 300, 900)
_GPU = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PROCESSING = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_QUEUE = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_AVERAGE = (*(0.2, 0.3, 0.4, 0.45, 0.5, 0.525, 0.55, 0.575, 0.6), *(0.65, 0.7, 0.75, 0.8, 0.9, 1.0))
_AVERAGE_SCALE_DOWN_SECONDS = (30, 60, 300)
_TARGETS_AND_WAITS = (
    *product((50, 55, 60, 65, 70, 75, 80, 100), (1, 2, 3, 5, 10, 60)),
    *product((20, 25, 30, 35, 40, 45, 52, 57), (1, 3, 60)),
    *((40, 5), (10, 1)),
)
"""targetSlotUtilization and maxWaitSeconds."""
_FIXED = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 30, 40)
MIN_REPLICAS = {"burst": (8, 10, 12, 14, 16)}
"""Further values of minReplicas for all systems, on traces where 1 is too few with any setting."""
_BURST_MINUTES = {"burst": (19, 39, 59)}
"""Minutes of the hour at which bursts begin, on traces where they have a schedule."""
_BURST_LENGTH_MINUTES = 1


@dataclass(frozen=True)
class Case:
    """A trace, and the loading time of the replicas."""

    trace: str
    load_seconds: float


@dataclass(frozen=True)
class Point:
    """The results of a case under one system with one setting."""

    system: str
    setting: str
    service_level: float
    """Share of requests, 0 to 1, that waited for a second at most."""
    cost_ratio: float
    """Replica-seconds, relative to the oracle's."""
    p99: float
    """99th percentile of the queue wait in seconds."""
    changes: int
    """Number of changes of the desired replicas."""


class Fixed:
    """A constant number of replicas, as chosen with knowledge of the whole trace."""

    interval_seconds = 60.0

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def desired_replicas(self, observation: Observation) -> int:  # noqa: ARG002 (is not needed)
        """Return the same number whatever is observed."""
        return self._replicas


_CreateScaler = Callable[[], Scaler]


def settings(case: Case, *, few: bool = False) -> Iterator[tuple[str, str, _CreateScaler]]:
    """Yield each system, its setting in words, and its scaler; with `few` one setting of each."""
    yield from _with_min_replicas(1, few=few)
    for min_replicas in () if few else MIN_REPLICAS.get(case.trace, ()):
        for name, setting, create in _with_min_replicas(min_replicas, few=True):
            yield name, f"{setting}, at least {min_replicas}", create
    yield from _scheduled(case, few=few)
    for replicas in _FIXED[:1] if few else _FIXED:
        yield FIXED, str(replicas), partial(Fixed, replicas)


def _with_min_replicas(min_replicas: int, *, few: bool) -> Iterator[tuple[str, str, _CreateScaler]]:
    downs = (300,) if few else _SCALE_DOWN_SECONDS
    pairs = ((80, 5),) if few else _TARGETS_AND_WAITS
    for down, (percent, wait) in product(downs, pairs):
        setting = f"{percent} %, {wait} s, down after {down} s"
        yield SLOTKEEPER, setting, _slotkeeper(percent, wait, down, min_replicas)
    all_targets: Mapping[str, Sequence[float]] = {
        "gpu": (0.8,) if few else _GPU,
        "processing": (0.8,) if few else _PROCESSING,
        "queue": (0.25,) if few else _QUEUE,
        "average": (0.8,) if few else _AVERAGE,
    }
    for name, targets in all_targets.items():
        own_downs = _AVERAGE_SCALE_DOWN_SECONDS if name == "average" and not few else downs
        for down, target in product(own_downs, targets):
            setting = f"{target:g}, down after {down} s"
            yield name, setting, _reference(name, target, down, min_replicas)


def _scheduled(case: Case, *, few: bool) -> Iterator[tuple[str, str, _CreateScaler]]:
    """Yield settings whose schedules have replicas loaded from the start to the end of a burst."""
    begins = _BURST_MINUTES.get(case.trace, ())
    lead = ceil(case.load_seconds / 60)
    combinations = product((15, 60), MIN_REPLICAS.get(case.trace, ()), (1, 2))
    for down, in_bursts, otherwise in islice(combinations, 1 if few else None):
        ends = (begin + _BURST_LENGTH_MINUTES for begin in begins)
        schedules = [
            {"cron": _hourly(begin - lead for begin in begins), "minReplicas": in_bursts},
            {"cron": _hourly(ends), "minReplicas": otherwise},
        ]
        setting = (
            f"{in_bursts} from {lead} min before bursts, else {otherwise}, down after {down} s"
        )
        yield SCHEDULED, setting, _slotkeeper(80, 5, down, 1, schedules)


def _hourly(minutes: Iterable[int]) -> str:
    return f"{','.join(str(minute % 60) for minute in minutes)} * * * *"


def _slotkeeper(
    percent: int, wait: int, down: int, min_replicas: int, schedules: Sequence[object] = ()
) -> _CreateScaler:
    spec = {
        "minReplicas": min_replicas,
        "maxReplicas": MAX_REPLICAS,
        "schedules": list(schedules),
        "targetSlotUtilization": percent,
        "maxWaitSeconds": wait,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": down}},
    }
    return lambda: SlotkeeperScaler(SLOTS, Autoscaling.model_validate(spec), BEGIN)


def _reference(name: str, target: float, down: int, min_replicas: int) -> _CreateScaler:
    bounds = PolicyBounds(SLOTS, min_replicas, MAX_REPLICAS, down)
    return lambda: REFERENCE_POLICIES[name].create(target, bounds)


def sweep(cases: Sequence[Case], *, few: bool = False) -> dict[Case, list[Point]]:
    """Simulate all settings of all cases, on all cores."""
    jobs = [(case, index, few) for case in cases for index, _ in enumerate(settings(case, few=few))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        points = list(pool.map(_simulate, jobs, chunksize=8))
    results: dict[Case, list[Point]] = {case: [] for case in cases}
    for (case, _, _), point in zip(jobs, points, strict=True):
        results[case].append(point)
    return results


def _simulate(job: tuple[Case, int, bool]) -> Point:
    case, index, few = job
    system, setting, create = list(settings(case, few=few))[index]
    requests = generate(case.trace, SEED)
    model = ReplicaModel(SLOTS, case.load_seconds)
    result = Simulation(model, create()).run(requests)
    return Point(
        system,
        setting,
        share_within(result.waits, 1),
        result.replica_seconds / oracle_seconds(requests, model),
        percentile(result.waits, 99),
        len(result.changes) - 1,
    )
