"""All systems in each round, each round in another order."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.balancer.bed import Running

Pieces = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: `rounds`, and how long their pieces are beside the usual."""

    rounds: int
    length: float


FULL = Scale(rounds=6, length=1.0)
QUICK = Scale(rounds=2, length=0.15)


async def interleave(
    running: Sequence[Running],
    rounds: int,
    piece: Callable[[Running, int], Awaitable[dict[str, Any]]],
) -> Pieces:
    """The results of `piece(system, round)` by system, in the order of rounds.

    Each round begins with another system, so that none always follows the same one.
    """
    pieces: Pieces = {each.name: [] for each in running}
    for number in range(rounds):
        first = number % len(running)
        for each in (*running[first:], *running[:first]):
            pieces[each.name].append(await piece(each, number))
    return pieces
