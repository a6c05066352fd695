"""How many requests may be expected to wait for a slot longer than they should."""

from collections.abc import Iterator
from itertools import count
from math import exp


def late_shares(load: float, slot_seconds: float, slots: int, seconds: float) -> Iterator[float]:
    """The share of requests, 0 to 1, that wait longer than `seconds`: with 1, 2, 3 … times `slots`.

    Erlang C, for requests that come at random (Poisson), keep a slot for a random time
    (exponential, of mean `slot_seconds`) and wait in one line, first in first out: with the offered
    load a (slots that are busy on average, were there enough of them) and n slots, B(0) = 1,
    B(n) = a B(n-1) / (n + a B(n-1)) is the share that would find no slot if nobody waited,
    C = n B / (n - a (1 - B)) the share that waits at all, and C · exp(-(n - a) · seconds /
    slot_seconds) the share that waits longer; all of them where a ≥ n.

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
            yield 1.0
        else:
            waits = n * blocked / (n - load * (1 - blocked))
            yield waits * exp(-(n - load) * seconds / slot_seconds)
