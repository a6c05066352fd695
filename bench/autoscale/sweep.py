"""Every policy with every setting of its own, on every trace."""

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
from slotkeeper.simulation.generate import draw
from slotkeeper.simulation.reference_policies import PEERS, PolicyBounds
from slotkeeper.simulation.report import percentile, share_within
from slotkeeper.simulation.simulate import Observation, ReplicaModel, Scaler, Simulation
from slotkeeper.simulation.slotkeeper_policy import Slots

OURS = "slotkeeper"
SCHEDULED = "slotkeeper, schedules"
"""The same one where somebody knows when bursts come, and has said it in `schedules`."""
FIXED = "fixed"
SLOTS = 4
MOST = 40
SEED = 1
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)

_DOWN_SECONDS = (15, 60, 300, 900)
_GPU = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PROCESSING = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_QUEUE = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_AVERAGE = (*(0.2, 0.3, 0.4, 0.45, 0.5, 0.525, 0.55, 0.575, 0.6), *(0.65, 0.7, 0.75, 0.8, 0.9, 1.0))
_AVERAGE_DOWN_SECONDS = (30, 60, 300)
_SLOTS_AND_WAITS = (
    *product((50, 55, 60, 65, 70, 75, 80, 100), (1, 2, 3, 5, 10, 60)),
    *product((20, 25, 30, 35, 40, 45, 52, 57), (1, 3, 60)),
    *((40, 5), (10, 1)),
)
"""targetSlotUtilization and maxWaitSeconds."""
_ALWAYS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 30, 40)
LEAST = {"burst": (8, 10, 12, 14, 16)}
"""How many must be there at least, where one is too few whatever the setting; for every system."""
_BEGIN_MINUTES = {"burst": (19, 39, 59)}
"""When many come, on traces that go by the clock."""
_FOR_MINUTES = 1


@dataclass(frozen=True)
class Case:
    """What is played."""

    trace: str
    load_seconds: float


@dataclass(frozen=True)
class Point:
    """What became of it under one policy with one setting."""

    system: str
    setting: str
    good: float
    """The share of calls, 0 to 1, that waited for a second at most."""
    ratio: float
    """Replica-seconds, as a ratio to the oracle's."""
    p99: float
    """Seconds of waiting."""
    changes: int
    """How often the number of replicas was changed."""


class Fixed:
    """Always the same number: what somebody would set who knew the whole trace beforehand."""

    every = 60.0

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def wanted(self, look: Observation) -> int:  # noqa: ARG002 (whatever is seen)
        """As many as ever."""
        return self._replicas


_Make = Callable[[], Scaler]


def settings(case: Case, *, few: bool = False) -> Iterator[tuple[str, str, _Make]]:
    """Each policy's name, its setting in words, and how to make it; with `few` one of each."""
    yield from _with(1, few=few)
    for least in () if few else LEAST.get(case.trace, ()):
        for name, setting, make in _with(least, few=True):
            yield name, f"{setting}, at least {least}", make
    yield from _scheduled(case, few=few)
    for replicas in _ALWAYS[:1] if few else _ALWAYS:
        yield FIXED, str(replicas), partial(Fixed, replicas)


def _with(least: int, *, few: bool) -> Iterator[tuple[str, str, _Make]]:
    downs = (300,) if few else _DOWN_SECONDS
    pairs = ((80, 5),) if few else _SLOTS_AND_WAITS
    for down, (percent, wait) in product(downs, pairs):
        yield OURS, f"{percent} %, {wait} s, down after {down} s", _ours(percent, wait, down, least)
    targets: Mapping[str, Sequence[float]] = {
        "gpu": (0.8,) if few else _GPU,
        "processing": (0.8,) if few else _PROCESSING,
        "queue": (0.25,) if few else _QUEUE,
        "average": (0.8,) if few else _AVERAGE,
    }
    for name, tried in targets.items():
        of_this = _AVERAGE_DOWN_SECONDS if name == "average" and not few else downs
        for down, target in product(of_this, tried):
            yield name, f"{target:g}, down after {down} s", _peer(name, target, down, least)


def _scheduled(case: Case, *, few: bool) -> Iterator[tuple[str, str, _Make]]:
    """As many as are needed once they have loaded, from a burst's beginning until its end."""
    begins = _BEGIN_MINUTES.get(case.trace, ())
    lead = ceil(case.load_seconds / 60)
    least = LEAST.get(case.trace, ())
    all_of_them = product((15, 60), least, (1, 2))
    for down, busy, calm in islice(all_of_them, 1 if few else None):
        schedules = [
            {"cron": _hourly(begin - lead for begin in begins), "minReplicas": busy},
            {"cron": _hourly(begin + _FOR_MINUTES for begin in begins), "minReplicas": calm},
        ]
        setting = f"{busy} from {lead} min before bursts, else {calm}, down after {down} s"
        yield SCHEDULED, setting, _ours(80, 5, down, 1, schedules)


def _hourly(minutes: Iterable[int]) -> str:
    return f"{','.join(str(minute % 60) for minute in minutes)} * * * *"


def _ours(
    percent: int, wait: int, down: int, least: int, schedules: Sequence[object] = ()
) -> _Make:
    spec = {
        "minReplicas": least,
        "maxReplicas": MOST,
        "schedules": list(schedules),
        "targetSlotUtilization": percent,
        "maxWaitSeconds": wait,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": down}},
    }
    return lambda: Slots(SLOTS, Autoscaling.model_validate(spec), BEGIN)


def _peer(name: str, target: float, down: int, least: int) -> _Make:
    return lambda: PEERS[name].make(target, PolicyBounds(SLOTS, least, MOST, down))


def sweep(cases: Sequence[Case], *, few: bool = False) -> dict[Case, list[Point]]:
    """Play all; as many at the same time as there are cores."""
    jobs = [(case, index, few) for case in cases for index, _ in enumerate(settings(case, few=few))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        points = list(pool.map(_play, jobs, chunksize=8))
    found: dict[Case, list[Point]] = {case: [] for case in cases}
    for (case, _, _), point in zip(jobs, points, strict=True):
        found[case].append(point)
    return found


def _play(job: tuple[Case, int, bool]) -> Point:
    case, index, few = job
    system, setting, make = list(settings(case, few=few))[index]
    calls = draw(case.trace, SEED)
    replicas = ReplicaModel(SLOTS, case.load_seconds)
    outcome = Simulation(replicas, make()).run(calls)
    return Point(
        system,
        setting,
        share_within(outcome.waits, 1),
        outcome.replica_seconds / oracle_seconds(calls, replicas),
        percentile(outcome.waits, 99),
        len(outcome.changes) - 1,
    )
