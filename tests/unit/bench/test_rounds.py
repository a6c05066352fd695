from pathlib import Path
from typing import Any

from bench.balancer.rounds import interleave
from bench.balancer.systems import ProxySetup
from bench.balancer.testbed import RunningSystem

SETUP = ProxySetup(1, 2, (3,), 1, Path("/folder"))
RUNNING = [RunningSystem(name, [1], "random", None, SETUP) for name in "abc"]


async def test_each_round_begins_with_another_system() -> None:
    order = []

    async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
        order.append((number, system.name))
        return {}

    await interleave(RUNNING, 3, sample)

    assert [name for _, name in order] == list("abcbcacab")
    assert [number for number, _ in order] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_samples_are_in_the_order_of_rounds() -> None:
    async def sample(system: RunningSystem, number: int) -> dict[str, Any]:
        return {"id": f"{system.name}{number}"}

    samples = await interleave(RUNNING, 2, sample)

    assert samples == {name: [{"id": f"{name}0"}, {"id": f"{name}1"}] for name in "abc"}
