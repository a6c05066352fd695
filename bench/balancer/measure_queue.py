"""How long requests wait at 0.9 load, beside the ideal line on the same trace."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.balancer.bed import Running, bed
from bench.balancer.fake_server import Kind
from bench.balancer.rounds import Pieces, Scale, interleave
from bench.balancer.stats import median_of
from bench.balancer.systems import HAPROXY, NGINX, RANDOM, ROUND_ROBIN, SLOTKEEPER
from bench.balancer.trace import Shape
from bench.findings import Findings, Gate, Plot, Table, at_most, digits

_REPLICAS = 8
_SLOTS = 8
_LOAD = 0.9
_MEAN_SERVICE = 0.05
_COUNT = 4000


async def measure(scale: Scale) -> Findings:
    """8 replicas with 8 slots; each round has a trace of its own, the same for all systems."""
    systems = (RANDOM, ROUND_ROBIN, NGINX, HAPROXY, SLOTKEEPER)
    async with bed(_REPLICAS, Kind(slots=_SLOTS), systems) as made:

        async def piece(system: Running, number: int) -> dict[str, Any]:
            await made.fakes.call("reset")
            shape = Shape(
                seed=number,
                count=round(_COUNT * scale.length),
                slots=_REPLICAS * _SLOTS,
                load=_LOAD,
                mean_service=_MEAN_SERVICE,
            )
            found: dict[str, Any] = await made.load.call(
                "trace", ports=system.ports, pick=system.pick, shape=asdict(shape)
            )
            stats = await made.fakes.call("stats")
            return {**found, "over_commits": stats["over_commits"]}

        for system in made.running:
            # Its connections to the replicas are there before anything is measured.
            await made.load.call("closed", ports=system.ports, connections=64, seconds=0.2)
        pieces = await interleave(made.running, scale.rounds, piece)
    ours = pieces["slotkeeper"]
    return Findings(
        "queue",
        tables=[_table(pieces)],
        gates=[
            _none("requests beyond a replica's slots", ours, "over_commits"),
            _none("requests overtaken by a later one", ours, "overtaken"),
            _none("requests lost", ours, "lost"),
            at_most(f"mean wait beyond the ideal at {_LOAD} load", median(_beyond(ours)), 5, "ms"),
        ],
        plots=[
            Plot(
                "queue_wait",
                f"Wait for a slot at {_LOAD} load, {_REPLICAS}×{_SLOTS} slots",
                "ms",
                {
                    "ideal": _waits(ours, "ideal_ms"),
                    **{name: _waits(found, "wait_ms") for name, found in pieces.items()},
                },
                log=True,
            )
        ],
        raw=dict(pieces),
    )


def _none(name: str, found: Sequence[dict[str, Any]], field: str) -> Gate:
    count = sum(piece[field] for piece in found)
    of = sum(piece["requests"] for piece in found)
    return Gate(name, "0", f"{count} of {of}", count == 0)


def _beyond(found: Sequence[dict[str, Any]]) -> list[float]:
    return [piece["wait_ms"]["mean"] - piece["ideal_ms"]["mean"] for piece in found]


def _waits(found: Sequence[dict[str, Any]], group: str) -> dict[str, float]:
    return {name: median_of(found, group, name) for name in ("mean", "p99")}


def _table(pieces: Pieces) -> Table:
    rows = []
    for name, found in pieces.items():
        waits = _waits(found, "wait_ms")
        ideal = _waits(found, "ideal_ms")
        requests = sum(piece["requests"] for piece in found)
        over = sum(piece["over_commits"] for piece in found)
        rows.append(
            (
                name,
                digits(waits["mean"]),
                digits(ideal["mean"]),
                f"{median(_beyond(found)):+.2f}",
                digits(waits["p99"]),
                digits(ideal["p99"]),
                f"{over} ({over / requests:.1%})",
                str(sum(piece["overtaken"] for piece in found)),
                str(sum(piece["lost"] for piece in found)),
                digits(median_of(found, "load")),
            )
        )
    return Table(
        f"Waiting for a slot at {_LOAD} load",
        (
            "system",
            "mean ms",
            "ideal",
            "beyond it",
            "p99 ms",
            "ideal",
            "beyond the slots",
            "overtaken",
            "lost",
            "load as it was",
        ),
        rows,
        f"{_REPLICAS} replicas with {_SLOTS} slots, Poisson arrivals, lognormal service (mean "
        f"{_MEAN_SERVICE * 1000:.0f} ms, squared coefficient of variation 8). Wait: from sending a "
        "request to its start on a slot. Ideal: one line before all slots, on the same trace as "
        "it came to pass. Random and round robin choose anew for each request, which is better "
        "than a Kubernetes Service does with connections that are kept.",
    )
