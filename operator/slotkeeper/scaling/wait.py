"""How long requests may be expected to wait for a slot."""

from collections.abc import Iterator
from itertools import count
from math import inf


def expected_waits(arrivals: float, slot_seconds: float, slots: int) -> Iterator[float]:
    """Mean seconds of waiting with 1, 2, 3 … times `slots` slots.

    Erlang C, for requests that come at random (Poisson), keep a slot for a random time
    (exponential, of mean `slot_seconds`) and wait in one line: with the offered load
    a = arrivals · slot_seconds and n slots, B(0) = 1, B(n) = a B(n-1) / (n + a B(n-1)) is the
    share that would find no slot if nobody waited, C = n B / (n - a (1 - B)) the share that waits,
    and C · slot_seconds / (n - a) the mean wait; endless where a ≥ n.

    Source: A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of Significance
    in Automatic Telephone Exchanges" (1917); the recursion as in R. B. Cooper, "Introduction to
    Queueing Theory", 2nd edition, chapter 3.
    """
    load, blocked = arrivals * slot_seconds, 1.0
    for n in count(1):
        blocked = load * blocked / (n + load * blocked)
        if n % slots:
            continue
        if load >= n:
            yield inf
        else:
            waits = n * blocked / (n - load * (1 - blocked))
            yield waits * slot_seconds / (n - load)
