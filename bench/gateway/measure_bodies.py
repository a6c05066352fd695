"""Measures the memory of gateways while bodies of 20 MB pass through."""

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.rounds import Scale
from bench.balancer.systems import System
from bench.findings import Findings, Plot, Table, at_most, digits
from bench.gateway.systems import GATEWAY, LITELLM, PORTKEY
from bench.gateway.testbed import testbed
from bench.processes import memory

_SIZE = 20_000_000
_CONNECTIONS = (1, 4)


async def measure(scale: Scale) -> Findings:
    """Send bodies of 20 MB on one connection, then on four; each gateway is measured alone."""
    count = 4 if scale.length < 1 else 40
    measured = {
        system.name: await _measure(system, count) for system in (GATEWAY, LITELLM, PORTKEY)
    }
    ours = measured[GATEWAY.name]
    return Findings(
        "bodies",
        tables=[
            Table(
                "Bodies of 20 MB",
                ("system", "idle MB", "1 connection MB", "4 connections MB", "p50 ms"),
                [
                    (
                        name,
                        *(digits(each[key]) for key in ("idle", "1", "4", "p50")),
                    )
                    for name, each in measured.items()
                ],
                f"Peak resident memory of the process after {count} bodies on each connection. The "
                "model is at the end of the JSON. p50: with one connection.",
            )
        ],
        gates=[at_most("memory, 4 bodies of 20 MB at a time", ours["4"], 200, "MB")],
        plots=[
            Plot(
                "gateway_bodies",
                "Peak resident memory with bodies of 20 MB",
                "MB",
                {
                    name: {key: each[key] for key in ("idle", "1", "4")}
                    for name, each in measured.items()
                },
            )
        ],
        raw=dict(measured),
    )


async def _measure(system: System, count: int) -> dict[str, float]:
    async with testbed(1, ReplicaOptions(slots=8), (system,)) as bed:
        gateway = bed.running[-1]
        assert gateway.pid
        figures = {"idle": memory(gateway.pid).highest}
        for connections in _CONNECTIONS:
            result = await bed.load.call(
                "closed_loop",
                ports=gateway.ports,
                connections=connections,
                seconds=120,
                max_requests=count * connections,
                headers=gateway.headers,
                size=_SIZE,
            )
            if result["failed"]:
                raise RuntimeError(f"{system.name}: {result['failed']} bodies of 20 MB failed")
            figures[str(connections)] = memory(gateway.pid).highest
            if connections == 1:
                figures["p50"] = result["latency_ms"]["p50"]
        return figures
