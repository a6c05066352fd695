"""Measurement rounds: each measures all systems, each in a different order."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.balancer.testbed import RunningSystem

Samples = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of a measurement: the number of rounds, and a factor for the length of each sample."""

    rounds: int
    length: float


FULL = Scale(rounds=6, length=1.0)
QUICK = Scale(rounds=2, length=0.15)


async def interleave(
    running: Sequence[RunningSystem],
    rounds: int,
    sample: Callable[[RunningSystem, int], Awaitable[dict[str, Any]]],
) -> Samples:
    """Return the results of `sample(system, round)` by system, in the order of rounds.

    Each round begins with another system, so that no system always follows the same one.
    """
    samples: Samples = {each.name: [] for each in running}
    for number in range(rounds):
        first = number % len(running)
        for each in (*running[first:], *running[:first]):
            samples[each.name].append(await sample(each, number))
    return samples
