"""How long requests may be expected to wait for a slot."""

from collections.abc import Iterator
from itertools import count
from math import inf


def erlang_c_waits(load: float, slot_seconds: float, slots: int) -> Iterator[float]:
    """Seconds that a request waits on average: with 1, 2, 3 … times `slots`; infinite at too few.

    Erlang C, for requests that come at random (Poisson), keep a slot for a random time
    (exponential, of mean `slot_seconds`) and wait in one line, first in first out: with the offered
    load a (slots that are busy on average, were there enough of them) and n slots, B(0) = 1,
    B(n) = a B(n-1) / (n + a B(n-1)) is the share that would find no slot if nobody waited,
    C = n B / (n - a (1 - B)) the share that waits at all, and C · slot_seconds / (n - a) the mean
    wait of all; there is none where a ≥ n.

    Source: A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of Significance
    in Automatic Telephone Exchanges" (1917); the recursion as in R. B. Cooper, "Introduction to
    Queueing Theory", 2nd edition, chapter 3.
    """
    blocked = 1.0
    for n in count(1):
        blocked = load * blocked / (n + load * blocked)
        if n % slots:
            continue
        if load >= n:
            yield inf
        else:
            waits = n * blocked / (n - load * (1 - blocked))
            yield waits * slot_seconds / (n - load)


def drain_time(demand: int, slot_seconds: float, slots: int) -> float:
    """Seconds until the last of `demand` requests gets one of so many slots; 0 where all have one.

    While all slots work, one comes free each slot_seconds / slots on average, and the requests that
    have none take them in turn.
    """
    return max(demand - slots, 0) * slot_seconds / slots


def slots_for_wait(demand: int, slot_seconds: float, seconds: float) -> float:
    """With how many slots `last_wait` is just `seconds`: fewer than that are too few."""
    return demand * slot_seconds / (slot_seconds + seconds)
