"""Random traces: equal seeds generate equal requests on every machine."""

import math
from collections.abc import Callable, Iterator, Mapping
from random import Random

from slotkeeper.simulation.trace import TraceRequest

_HOUR = 3600.0
_MEAN_SERVICE_SECONDS = 12.0
_SPREAD = 0.9
"""Standard deviation of the logarithm of the service time: a few long ones, many short ones."""


def steady(rng: Random) -> Iterator[TraceRequest]:
    """Three hours at a constant arrival rate: about eleven concurrent requests."""
    for at in _poisson(rng, lambda _: 0.9, 0.9, 3 * _HOUR):
        yield TraceRequest(at, _service_seconds(rng))


def burst(rng: Random) -> Iterator[TraceRequest]:
    """Three hours at a low arrival rate; one minute in twenty has thirty times that rate."""

    def rate(at: float) -> float:
        return 3.0 if at % 1200 >= 1140 else 0.1

    for at in _poisson(rng, rate, 3.0, 3 * _HOUR):
        yield TraceRequest(at, _service_seconds(rng))


def day(rng: Random) -> Iterator[TraceRequest]:
    """A working day: nearly no load at night, one peak before noon and one after it."""

    def rate(at: float) -> float:
        hour = at / _HOUR
        peaks = math.exp(-((hour - 10.5) ** 2) / 3) + math.exp(-((hour - 15) ** 2) / 4)
        return 0.01 + 1.8 * peaks

    for at in _poisson(rng, rate, 2.2, 24 * _HOUR):
        yield TraceRequest(at, _service_seconds(rng))


def sessions(rng: Random) -> Iterator[TraceRequest]:
    """Six hours of conversations with successive turns; a few have very many turns."""
    requests = list[TraceRequest]()
    for begin in _poisson(rng, lambda _: 0.04, 0.04, 6 * _HOUR):
        at = begin
        for _ in range(min(int(rng.paretovariate(1.2)), 200)):
            service_seconds = _service_seconds(rng)
            requests.append(TraceRequest(at, service_seconds))
            at += service_seconds + rng.expovariate(1 / 20)
    yield from sorted(requests, key=lambda request: request.at)


GENERATORS: Mapping[str, Callable[[Random], Iterator[TraceRequest]]] = {
    "steady": steady,
    "burst": burst,
    "day": day,
    "sessions": sessions,
}
"""By name. A generator's docstring is its help text."""


def generate(name: str, seed: int) -> list[TraceRequest]:
    """Return the requests of one of GENERATORS, in order of time."""
    return list(GENERATORS[name](Random(seed)))  # noqa: S311 (must be reproducible)


def _service_seconds(rng: Random) -> float:
    return _MEAN_SERVICE_SECONDS * rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)


def _poisson(
    rng: Random, rate: Callable[[float], float], max_rate: float, until: float
) -> Iterator[float]:
    """Yield the times of a Poisson process with `rate` per second, which is at most `max_rate`."""
    at = rng.expovariate(max_rate)
    while at < until:
        if rng.random() * max_rate < rate(at):
            yield at
        at += rng.expovariate(max_rate)
