"""Traces drawn at random: the same seed gives the same calls everywhere."""

import math
from collections.abc import Callable, Iterator, Mapping
from random import Random

from slotkeeper.simulation.trace import TraceRequest

_HOUR = 3600.0
_MEAN_SECONDS = 12.0
_SPREAD = 0.9
"""Of the logarithm of an answer's seconds: a few long ones among many short ones."""


def steady(rng: Random) -> Iterator[TraceRequest]:
    """Three hours at an even rate: some eleven calls at a time."""
    for at in _poisson(rng, lambda _: 0.9, 0.9, 3 * _HOUR):
        yield TraceRequest(at, _seconds(rng))


def burst(rng: Random) -> Iterator[TraceRequest]:
    """Three hours of little, and every twenty minutes a minute of thirty times as much."""

    def rate(at: float) -> float:
        return 3.0 if at % 1200 >= 1140 else 0.1

    for at in _poisson(rng, rate, 3.0, 3 * _HOUR):
        yield TraceRequest(at, _seconds(rng))


def day(rng: Random) -> Iterator[TraceRequest]:
    """A working day: nearly nothing at night, a hump before noon and one after it."""

    def rate(at: float) -> float:
        hour = at / _HOUR
        humps = math.exp(-((hour - 10.5) ** 2) / 3) + math.exp(-((hour - 15) ** 2) / 4)
        return 0.01 + 1.8 * humps

    for at in _poisson(rng, rate, 2.2, 24 * _HOUR):
        yield TraceRequest(at, _seconds(rng))


def sessions(rng: Random) -> Iterator[TraceRequest]:
    """Six hours of conversations: turns that follow one another, in a few of them very many."""
    calls = list[TraceRequest]()
    for begin in _poisson(rng, lambda _: 0.04, 0.04, 6 * _HOUR):
        at = begin
        for _ in range(min(int(rng.paretovariate(1.2)), 200)):
            seconds = _seconds(rng)
            calls.append(TraceRequest(at, seconds))
            at += seconds + rng.expovariate(1 / 20)
    yield from sorted(calls, key=lambda call: call.at)


GENERATORS: Mapping[str, Callable[[Random], Iterator[TraceRequest]]] = {
    "steady": steady,
    "burst": burst,
    "day": day,
    "sessions": sessions,
}
"""What there is to draw from, by name."""


def draw(name: str, seed: int) -> list[TraceRequest]:
    """The calls of one of GENERATORS."""
    return list(GENERATORS[name](Random(seed)))  # noqa: S311 (the same everywhere is what it is for)


def _seconds(rng: Random) -> float:
    return _MEAN_SECONDS * rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)


def _poisson(
    rng: Random, rate: Callable[[float], float], most: float, until: float
) -> Iterator[float]:
    """Times that come at random, `rate` of them a second, which is never above `most`."""
    at = rng.expovariate(most)
    while at < until:
        if rng.random() * most < rate(at):
            yield at
        at += rng.expovariate(most)
