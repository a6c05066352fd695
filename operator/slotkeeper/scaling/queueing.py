"""Queueing theory: expected waits and drain times."""

from collections.abc import Iterator
from itertools import count
from math import inf


def erlang_c_waits(offered_load: float, service_seconds: float, slots: int) -> Iterator[float]:
    """Yield the mean wait in seconds with 1, 2, 3 … replicas of `slots`; infinite at too few.

    Erlang C (M/M/n): Poisson arrivals, exponential service times of mean `service_seconds`, one
    queue, first in first out. With the offered load a (in Erlang: the mean number of busy slots, if
    there were enough) and n slots, B(0) = 1, B(n) = a B(n-1) / (n + a B(n-1)) is the probability
    that no slot is free if there were no queue (Erlang B), C = n B / (n - a (1 - B)) the
    probability of a wait, and C · service_seconds / (n - a) the mean wait of all requests; it is
    infinite where a ≥ n.

    Source: A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of Significance
    in Automatic Telephone Exchanges" (1917); the recursion as in R. B. Cooper, "Introduction to
    Queueing Theory", 2nd edition, chapter 3.
    """
    blocking = 1.0
    for n in count(1):
        blocking = offered_load * blocking / (n + offered_load * blocking)
        if n % slots:
            continue
        if offered_load >= n:
            yield inf
        else:
            waiting = n * blocking / (n - offered_load * (1 - blocking))
            yield waiting * service_seconds / (n - offered_load)


def drain_time(demand: int, service_seconds: float, slots: int) -> float:
    """Return the seconds until the last of `demand` requests gets a slot; 0 if all have one.

    While all slots are busy, one is released each service_seconds / slots on average, and the
    queued requests take them in turn.
    """
    return max(demand - slots, 0) * service_seconds / slots


def slots_for_wait(demand: int, service_seconds: float, wait_seconds: float) -> float:
    """Return the slots, a fraction, with which `drain_time` is exactly `wait_seconds`."""
    return demand * service_seconds / (service_seconds + wait_seconds)
