"""How often a prompt finds the replica that remembers it, and what a miss costs the others."""

from dataclasses import asdict
from typing import Any

from bench.balancer.bed import Running, bed
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Pieces, Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import HAPROXY, SLOTKEEPER
from bench.balancer.trace import Shape
from bench.findings import Findings, Plot, Table, at_least, at_most, digits

_REPLICAS = 8
_SLOTS = 8
_LOADS = (0.8, 0.9, 0.95)
_MEAN_SERVICE = 0.05
_SECONDS = 3.0


async def measure(scale: Scale) -> Findings:
    """200 sessions; a replica remembers 40 prompts, and a miss costs half a mean service."""
    kind = Kind(slots=_SLOTS, cache=40, miss_us=round(_MEAN_SERVICE / 2 * 1e6))
    found: dict[float, Pieces] = {}
    async with bed(_REPLICAS, kind, (HAPROXY, SLOTKEEPER)) as made:
        for load in _LOADS:

            async def piece(system: Running, number: int, load: float = load) -> dict[str, Any]:
                await made.fakes.call("reset")
                rate = load * _REPLICAS * _SLOTS / _MEAN_SERVICE
                shape = Shape(
                    seed=number,
                    count=round(rate * _SECONDS * max(scale.length, 0.3)),
                    slots=_REPLICAS * _SLOTS,
                    load=load,
                    mean_service=_MEAN_SERVICE,
                    sessions=200,
                )
                answer: dict[str, Any] = await made.load.call(
                    "trace", ports=system.ports, pick=system.pick, shape=asdict(shape)
                )
                return answer

            found[load] = await interleave(made.running, max(2, scale.rounds // 2), piece)
    hits = {load: _hits(pieces, "slotkeeper") for load, pieces in found.items()}
    return Findings(
        "warm",
        tables=[_table(found)],
        gates=[
            at_least("warm prompts at 0.8 load", hits[0.8], 0.95),
            at_least("warm prompts at 0.9 load", hits[0.9], 0.9),
            at_most("load with the misses' cost at 0.95", _load(found[0.95], "slotkeeper"), 1.0),
        ],
        plots=[
            Plot(
                "warm",
                "Prompts that found the replica that remembers them",
                "share",
                {
                    name: {str(load): _hits(pieces, name) for load, pieces in found.items()}
                    for name in ("HAProxy", "slotkeeper")
                },
            )
        ],
        raw={str(load): pieces for load, pieces in found.items()},
    )


def _hits(pieces: Pieces, name: str) -> float:
    return median_of(pieces[name], "hits")


def _load(pieces: Pieces, name: str) -> float:
    return median_of(pieces[name], "settled_load")


def _table(found: dict[float, Pieces]) -> Table:
    rows = []
    for load, pieces in found.items():
        for name, each in pieces.items():
            wait = median_of(each, "settled_wait_ms", "mean")
            rows.append(
                (
                    name,
                    str(load),
                    digits(_hits(pieces, name)),
                    digits(_load(pieces, name)),
                    digits(wait),
                )
            )
    return Table(
        "Warm prompts",
        ("system", "load without misses", "warm", "load with them", "mean wait ms"),
        rows,
        "200 sessions with prompts of 4 kB, replicas that remember 40 of them, a miss costs half a "
        "mean service. The first quarter fills the caches and is not counted. With a load of more "
        "than 1 the line grows for as long as it lasts.",
    )
