"""Random workloads, with a seed so that every system gets the same requests."""

import math
import random
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Workload:
    """Parameters of a workload.

    Arrivals are a Poisson process. Service times are lognormal with squared coefficient of
    variation `c2`: a few long responses among many short ones, like chat. `load` is the mean
    utilization of `slots`. `sessions` is the number of clients with their own prompt; 0: all
    prompts are the same.
    """

    seed: int
    count: int
    slots: int
    load: float
    mean_service: float
    """Seconds."""
    c2: float = 8.0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its time in seconds since the start, its seconds on a slot, and the session of
    its prompt (-1: none)."""

    at: float
    service: float
    session: int


def draw(workload: Workload) -> list[Arrival]:
    """Draw the requests, sorted by time. The result depends only on the workload.

    The drawn interarrival and service times are scaled so that their means are exactly those of the
    workload: with heavy tails, the mean of a few thousand draws is off by 5 %, and at a load of 0.9
    that decides whether there is a queue.
    """
    rng = random.Random(workload.seed)
    sigma = math.sqrt(math.log(1 + workload.c2))
    gaps = [rng.expovariate(1) for _ in range(workload.count)]
    services = [rng.lognormvariate(0, sigma) for _ in range(workload.count)]
    sessions = [rng.randrange(workload.sessions) if workload.sessions else -1 for _ in gaps]
    gap = workload.mean_service / (workload.load * workload.slots)
    return [
        Arrival(at, service, session)
        for at, service, session in zip(
            accumulate(_with_mean(gaps, gap)),
            _with_mean(services, workload.mean_service),
            sessions,
            strict=True,
        )
    ]


def _with_mean(values: list[float], mean: float) -> list[float]:
    factor = mean * len(values) / sum(values)
    return [value * factor for value in values]
