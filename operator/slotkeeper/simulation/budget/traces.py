"""Random and adversarial request traces for several models: equal seeds generate equal traces."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from slotkeeper.scaling.budget.resources import Resources, limits
from slotkeeper.simulation.budget.simulate import ModelRequest, SimulatedModel

_HOUR = 3600.0
_SERVICE_SECONDS = 8.0
_SPREAD = 0.8
"""Standard deviation of the logarithm of the service time."""

_NEVER_IDLE = 86400.0
"""Models stay loaded while there is room, as with llama-swap without `ttl`."""


@dataclass(frozen=True)
class Scenario:
    """Models that share a budget, and the requests for them."""

    name: str
    description: str
    limit: Resources
    models: Sequence[SimulatedModel]
    requests: Sequence[ModelRequest]


def _models(loads: Sequence[float], sizes: Sequence[float] = (1,)) -> list[SimulatedModel]:
    return [
        SimulatedModel(
            f"m{number}", Resources(gpus=size), load_seconds=load, idle_seconds=_NEVER_IDLE
        )
        for number, (load, size) in enumerate(zip(loads, cycle(sizes), strict=False))
    ]


def _service(rng: Random, mean: float = _SERVICE_SECONDS) -> float:
    return mean * rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)


def _poisson(
    rng: Random, rate: Callable[[float], float], peak: float, hours: float = 6
) -> Iterator[float]:
    at = rng.expovariate(peak)
    while at < hours * _HOUR:
        if rng.random() * peak < rate(at):
            yield at
        at += rng.expovariate(peak)


def zipf(rng: Random) -> Scenario:
    """Eight models by Zipf's law, three fit, a request every 40 s, 60 s to load."""
    models = _models([60.0] * 8)
    return Scenario("zipf", zipf.__doc__ or "", limits(gpus=3), models, _zipf(rng, models, 1 / 40))


def zipf_loads(rng: Random) -> Scenario:
    """The same with load times from 1 s to 5 min, the popular ones not the slow ones."""
    models = _models([20, 300, 5, 60, 1, 120, 30, 180])
    return Scenario(
        "zipf, loads", zipf_loads.__doc__ or "", limits(gpus=3), models, _zipf(rng, models, 1 / 40)
    )


def zipf_sizes(rng: Random) -> Scenario:
    """Eight models of 1, 2 or 4 GPUs, six GPUs, load times from 5 s to 5 min."""
    models = _models([20, 300, 5, 60, 10, 120, 30, 180], sizes=[1, 4, 1, 2])
    return Scenario(
        "zipf, sizes", zipf_sizes.__doc__ or "", limits(gpus=6), models, _zipf(rng, models, 1 / 40)
    )


def _zipf(rng: Random, models: Sequence[SimulatedModel], rate: float) -> list[ModelRequest]:
    weights = [1 / (rank + 1) for rank in range(len(models))]
    return [
        ModelRequest(at, rng.choices(models, weights)[0].name, _service(rng))
        for at in _poisson(rng, lambda _: rate, rate)
    ]


def alternating(rng: Random) -> Scenario:
    """Two models in turns, one fits, a request every 45 s, 20 s to load: each request misses."""
    models = _models([20.0, 20.0])
    requests = [
        ModelRequest(45.0 * number, f"m{number % 2}", _service(rng)) for number in range(480)
    ]
    return Scenario("alternating", alternating.__doc__ or "", limits(gpus=1), models, requests)


def two_hot(rng: Random) -> Scenario:
    """Two models, one fits, each with a request every 5 s: neither is idle for long."""
    models = _models([30.0, 30.0])
    requests = [
        ModelRequest(at, f"m{rng.randrange(2)}", _service(rng))
        for at in _poisson(rng, lambda _: 0.4, 0.4, hours=2)
    ]
    return Scenario("two hot", two_hot.__doc__ or "", limits(gpus=1), models, requests)


def never_idle(rng: Random) -> Scenario:
    """One model that is never idle, and two with a request every ten minutes; one fits."""
    models = _models([30.0] * 3)
    requests = [
        ModelRequest(at, "m0" if rng.random() < 0.99 else f"m{rng.randrange(1, 3)}", _service(rng))
        for at in _poisson(rng, lambda _: 0.4, 0.4, hours=2)
    ]
    return Scenario("never idle", never_idle.__doc__ or "", limits(gpus=1), models, requests)


def sessions(rng: Random) -> Scenario:
    """Conversations with pauses of 20 s between turns, on four models, two fit, 45 s to load."""
    models = _models([45.0] * 4)
    requests = list[ModelRequest]()
    for begin in _poisson(rng, lambda _: 1 / 150, 1 / 150):
        at, model = begin, f"m{rng.choices(range(4), [4, 3, 2, 1])[0]}"
        for _ in range(min(int(rng.paretovariate(0.9)), 30)):
            seconds = _service(rng)
            requests.append(ModelRequest(at, model, seconds))
            at += seconds + rng.expovariate(1 / 20)
    requests.sort(key=lambda request: request.at)
    return Scenario("sessions", sessions.__doc__ or "", limits(gpus=2), models, requests)


def scan(rng: Random) -> Scenario:
    """Four models in a circle, three fit: the worst case of LRU."""
    models = _models([60.0] * 4)
    requests = [
        ModelRequest(100.0 * number, f"m{number % 4}", _service(rng)) for number in range(216)
    ]
    return Scenario("scan", scan.__doc__ or "", limits(gpus=3), models, requests)


def scan_over_hot(rng: Random) -> Scenario:
    """Two popular models, and once in an hour a script that tries ten others; three fit."""
    models = _models([120.0, 120.0, *[10.0] * 10])
    requests = [
        ModelRequest(at, f"m{rng.randrange(2)}", _service(rng))
        for at in _poisson(rng, lambda _: 1 / 60, 1 / 60)
    ]
    for hour in range(6):
        requests += [
            ModelRequest(hour * _HOUR + 1800 + 40 * number, f"m{number + 2}", 3.0)
            for number in range(10)
        ]
    requests.sort(key=lambda request: request.at)
    return Scenario("scan over hot", scan_over_hot.__doc__ or "", limits(gpus=3), models, requests)


def bursts(rng: Random) -> Scenario:
    """Five models, two fit; each has bursts of ten minutes at times of its own, 90 s to load."""
    models = _models([90.0] * 5)
    requests = list[ModelRequest]()
    for number, model in enumerate(models):
        period = 1500.0 + 400 * number

        def rate(at: float, period: float = period) -> float:
            return 0.1 if at % period < 600 else 0.0005

        requests += [ModelRequest(at, model.name, _service(rng)) for at in _poisson(rng, rate, 0.1)]
    requests.sort(key=lambda request: request.at)
    return Scenario("bursts", bursts.__doc__ or "", limits(gpus=2), models, requests)


def slow_loader(rng: Random) -> Scenario:
    """One model takes 5 min to load, five take 5 s; all are equally popular; two fit."""
    models = _models([300.0, *[5.0] * 5])
    requests = [
        ModelRequest(at, f"m{rng.randrange(6)}", _service(rng))
        for at in _poisson(rng, lambda _: 1 / 45, 1 / 45)
    ]
    return Scenario("slow loader", slow_loader.__doc__ or "", limits(gpus=2), models, requests)


GENERATORS: Sequence[Callable[[Random], Scenario]] = (
    zipf,
    zipf_loads,
    zipf_sizes,
    bursts,
    scan_over_hot,
    slow_loader,
    scan,
    alternating,
    two_hot,
    never_idle,
    sessions,
)


def generate(seed: int) -> list[Scenario]:
    """Return all scenarios."""
    return [generator(Random(f"{generator.__name__} {seed}")) for generator in GENERATORS]  # noqa: S311 (must be reproducible)
