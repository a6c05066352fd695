"""The theoretical optimum: one FIFO queue for all slots, without any overhead."""

import heapq
from collections.abc import Sequence


def fifo_waits(arrivals: Sequence[float], services: Sequence[float], slots: int) -> list[float]:
    """Return each request's wait. `arrivals` must be sorted; all times have the same unit.

    A request starts on the slot that is free first.
    """
    free = [float("-inf")] * slots
    waits: list[float] = []
    for at, service in zip(arrivals, services, strict=True):
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + service)
        waits.append(start - at)
    return waits


def bypassed(arrivals: Sequence[float], starts: Sequence[float], tolerance: float) -> int:
    """Return how many requests were bypassed: a later request started before them.

    Both differences must exceed `tolerance`: requests that are sent on two connections at nearly
    the same time reach a server in any order.
    """
    ordered = sorted(zip(arrivals, starts, strict=True))
    earliest = float("inf")
    later = len(ordered)
    count = 0
    # From the last request to the first: `earliest` is the earliest start of all later requests.
    for at, start in reversed(ordered):
        while later and ordered[later - 1][0] > at + tolerance:
            later -= 1
            earliest = min(earliest, ordered[later][1])
        count += earliest < start - tolerance
    return count
