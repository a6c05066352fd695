"""Every policy with every setting of its own, on every trace."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product

from bench.autoscale.oracle import oracle_seconds
from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.whatif.generate import draw
from slotkeeper.whatif.ours import Slots
from slotkeeper.whatif.peers import PEERS, Bounds
from slotkeeper.whatif.report import percentile, share_within
from slotkeeper.whatif.simulate import Replicas, Scaler, Simulation

OURS = "slotkeeper"
SLOTS = 4
MOST = 40
SEED = 1
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)

_DOWN_SECONDS = (60, 300, 900, 1800)
_GPU = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PROCESSING = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_QUEUE = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_AVERAGE = (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0)
_WAIT_AND_SLOTS = (
    *((60, 100), (30, 100), (10, 100), (10, 80), (5, 100), (3, 100), (2, 100)),
    *((1, 100), (1, 70), (1, 65), (1, 60), (1, 55), (1, 50), (1, 40), (1, 30)),
)
"""maxWaitSeconds and targetSlotUtilization."""


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


_Make = Callable[[], Scaler]


def settings(*, few: bool = False) -> Iterator[tuple[str, str, _Make]]:
    """Each policy's name, its setting in words, and how to make it; with `few` one of each."""
    downs = (300,) if few else _DOWN_SECONDS
    pairs = ((10, 80),) if few else _WAIT_AND_SLOTS
    for down, (wait, percent) in product(downs, pairs):
        yield OURS, f"{percent} %, {wait} s, down after {down} s", _ours(percent, wait, down)
    targets: Mapping[str, Sequence[float]] = {
        "gpu": (0.8,) if few else _GPU,
        "processing": (0.8,) if few else _PROCESSING,
        "queue": (0.25,) if few else _QUEUE,
    }
    for name, tried in targets.items():
        for down, target in product(downs, tried):
            yield name, f"{target:g}, down after {down} s", _peer(name, target, down)
    for target in (0.8,) if few else _AVERAGE:
        yield "average", f"{target:g}", _peer("average", target, 0)


def _ours(percent: int, wait: int, down: int) -> _Make:
    spec = {
        "maxReplicas": MOST,
        "targetSlotUtilization": percent,
        "maxWaitSeconds": wait,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": down}},
    }
    return lambda: Slots(SLOTS, Autoscaling.model_validate(spec), BEGIN)


def _peer(name: str, target: float, down: int) -> _Make:
    return lambda: PEERS[name].make(target, Bounds(SLOTS, 1, MOST, down))


def sweep(cases: Sequence[Case], *, few: bool = False) -> dict[Case, list[Point]]:
    """Play all; as many at the same time as there are cores."""
    number = len(list(settings(few=few)))
    jobs = [(case, index, few) for case in cases for index in range(number)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        points = list(pool.map(_play, jobs, chunksize=8))
    found: dict[Case, list[Point]] = {case: [] for case in cases}
    for (case, _, _), point in zip(jobs, points, strict=True):
        found[case].append(point)
    return found


def _play(job: tuple[Case, int, bool]) -> Point:
    case, index, few = job
    system, setting, make = list(settings(few=few))[index]
    calls = draw(case.trace, SEED)
    replicas = Replicas(SLOTS, case.load_seconds)
    outcome = Simulation(replicas, make()).run(calls)
    return Point(
        system,
        setting,
        share_within(outcome.waits, 1),
        outcome.replica_seconds / oracle_seconds(calls, replicas),
        percentile(outcome.waits, 99),
        len(outcome.changes) - 1,
    )
