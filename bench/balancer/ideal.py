"""What cannot be beaten: one first-in-first-out line in front of all slots, with no time lost."""

import heapq
from collections.abc import Sequence


def fifo_waits(arrivals: Sequence[float], services: Sequence[float], slots: int) -> list[float]:
    """How long each request waits, in the order of `arrivals`, which must not fall.

    All in one unit of time. A request takes the slot that comes free first.
    """
    free = [float("-inf")] * slots
    waits: list[float] = []
    for at, service in zip(arrivals, services, strict=True):
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + service)
        waits.append(start - at)
    return waits


def overtaken(arrivals: Sequence[float], starts: Sequence[float], tolerance: float) -> int:
    """How many requests saw a later one start before them.

    Later and before by more than `tolerance` each: two requests on two connections that are sent
    at nearly the same time reach a server in any order.
    """
    ordered = sorted(zip(arrivals, starts, strict=True))
    earliest = float("inf")
    later = len(ordered)
    count = 0
    # From the last to the first: `earliest` is the first start of those that came later.
    for at, start in reversed(ordered):
        while later and ordered[later - 1][0] > at + tolerance:
            later -= 1
            earliest = min(earliest, ordered[later][1])
        count += earliest < start - tolerance
    return count
