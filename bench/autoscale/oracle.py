"""What somebody who knows the future would pay for."""

from collections.abc import Sequence
from itertools import accumulate, chain
from math import ceil

from slotkeeper.simulation.simulate import ReplicaModel
from slotkeeper.simulation.trace import TraceRequest


def oracle_seconds(calls: Sequence[TraceRequest], replicas: ReplicaModel) -> float:
    """The fewest replica-seconds with which no call waits and `replicas.first` are always there.

    A replica comes just so early that it has loaded when it is needed, and stays where it would be
    needed again before another one could be had for less. A floor: calls are packed into as few
    replicas as hold them, as if they could move.
    """
    steps = sorted(
        chain(((call.at, 1) for call in calls), ((call.at + call.seconds, -1) for call in calls))
    )
    end = steps[-1][0]
    in_use = accumulate((step for _, step in steps), initial=0)
    next(in_use)
    since: dict[int, float] = {}
    needed: dict[int, list[tuple[float, float]]] = {}
    before = replicas.first
    for (at, _), busy in zip(steps, in_use, strict=True):
        now = max(ceil(busy / replicas.slots), replicas.first)
        for number in range(before + 1, now + 1):
            since[number] = at
        for number in range(now + 1, before + 1):
            needed.setdefault(number, []).append((since.pop(number), at))
        before = now
    extra = sum(_paid(spans, replicas.load_seconds) for spans in needed.values())
    return replicas.first * end + extra


def _paid(spans: Sequence[tuple[float, float]], load_seconds: float) -> float:
    paid = 0.0
    until = float("-inf")
    for begin, end in spans:
        # To stay costs the pause, to come again the time of loading.
        paid += end - begin + min(begin - until, load_seconds, begin)
        until = end
    return paid
