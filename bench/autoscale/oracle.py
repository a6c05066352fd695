"""The cost of an oracle, which has perfect foresight of the trace."""

from collections.abc import Sequence
from itertools import accumulate, chain
from math import ceil

from slotkeeper.simulation.simulate import ReplicaModel
from slotkeeper.simulation.trace import TraceRequest


def oracle_seconds(requests: Sequence[TraceRequest], model: ReplicaModel) -> float:
    """Return the minimum replica-seconds with which no request is queued.

    `model.initial_replicas` always run. A further replica is created just early enough to have
    loaded when it is needed, and is kept over a pause that costs less than loading it again. This
    is a lower bound: requests are packed into as few replicas as have the slots, as if they could
    move.
    """
    steps = sorted(
        chain(
            ((each.at, 1) for each in requests),
            ((each.at + each.service_seconds, -1) for each in requests),
        )
    )
    end = steps[-1][0]
    busy_slots = accumulate((step for _, step in steps), initial=0)
    next(busy_slots)
    since: dict[int, float] = {}
    needed: dict[int, list[tuple[float, float]]] = {}
    before = model.initial_replicas
    for (at, _), busy in zip(steps, busy_slots, strict=True):
        now = max(ceil(busy / model.slots), model.initial_replicas)
        for number in range(before + 1, now + 1):
            since[number] = at
        for number in range(now + 1, before + 1):
            needed.setdefault(number, []).append((since.pop(number), at))
        before = now
    further = sum(_cost(intervals, model.load_seconds) for intervals in needed.values())
    return model.initial_replicas * end + further


def _cost(intervals: Sequence[tuple[float, float]], load_seconds: float) -> float:
    cost = 0.0
    until = float("-inf")
    for begin, end in intervals:
        # Keeping the replica costs the pause; creating it again costs the loading time.
        cost += end - begin + min(begin - until, load_seconds, begin)
        until = end
    return cost
