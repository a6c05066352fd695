from pathlib import Path
from typing import Any

from bench.balancer.bed import Running
from bench.balancer.rounds import interleave
from bench.balancer.systems import Place

PLACE = Place(1, 2, (3,), 1, Path("/there"))
RUNNING = [Running(name, [1], "random", None, PLACE) for name in "abc"]


async def test_each_round_begins_with_another_system() -> None:
    order = []

    async def piece(system: Running, number: int) -> dict[str, Any]:
        order.append((number, system.name))
        return {}

    await interleave(RUNNING, 3, piece)

    assert [name for _, name in order] == list("abcbcacab")
    assert [number for number, _ in order] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_pieces_stand_in_the_order_of_rounds() -> None:
    async def piece(system: Running, number: int) -> dict[str, Any]:
        return {"is": f"{system.name}{number}"}

    pieces = await interleave(RUNNING, 2, piece)

    assert pieces == {name: [{"is": f"{name}0"}, {"is": f"{name}1"}] for name in "abc"}
