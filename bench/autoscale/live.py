"""Validate the simulation: the same trace on a real cluster and in the simulation.

    PYTHONPATH=e2e python -m bench.autoscale.live

Real llama-servers, the real balancer and the real operator serve a trace of six minutes. The
balancer's access log of it is then simulated, with the same spec and the measured loading time: any
difference between the two is an error of the simulation.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from bench.findings import Findings, Table
from bench.report import markdown
from servers import SLOW, Server, spec
from slotkeeper.api.server import LlamaServerSpec
from slotkeeper.simulation.report import percentile, share_within
from slotkeeper.simulation.simulate import ReplicaModel, Simulation, SimulationResult
from slotkeeper.simulation.slotkeeper_policy import SlotkeeperScaler
from slotkeeper.simulation.trace import TraceRequest, from_access_log, write
from stack import Cluster, up

RESULTS = Path(__file__).resolve().parents[1] / "results"
NAME = "bench"
NAMESPACE = "live"
SECONDS = 360
BURST = range(60, 150)
SCALING = {
    "minReplicas": 1,
    "maxReplicas": 3,
    "maxWaitSeconds": 3,
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 45}},
}


def trace() -> list[TraceRequest]:
    """Return a trace with a low arrival rate, and five times that for a minute and a half."""
    rng = Random(1)
    at = 0.0
    requests = list[TraceRequest]()
    while (at := at + rng.expovariate(1.0 if int(at) in BURST else 0.2)) < SECONDS:
        requests.append(TraceRequest(at, rng.uniform(1, 5)))
    return requests


def main() -> int:
    """Measure, report, and delete the cluster."""
    cluster = Cluster(NAME)
    up(cluster)
    try:
        findings = _measure(cluster)
    finally:
        cluster.call("down")
    text = markdown("Validation of the simulation", [findings], {})
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "autoscale-live.md").write_text(text)
    print(text)
    return 0


def _measure(cluster: Cluster) -> Findings:
    cluster.kubectl("create", "namespace", NAMESPACE)
    server = Server(cluster, NAMESPACE, "llama")
    server_spec = spec(SLOW, autoscaling=SCALING)
    server.ready(server_spec)
    sent = io.StringIO()
    write(trace(), sent)
    cluster.read(
        *("run", sys.executable, "-m", "bench.autoscale.live_load", server.url),
        stdin=sent.getvalue(),
    )
    load_seconds = max(_load_seconds(cluster))
    lines = list(_log(server))
    requests = from_access_log(lines)
    served = list(_served(lines))
    # Both begin with the first request, as the trace from the access log does.
    began = datetime.fromtimestamp(
        min(entry["time"] - entry["duration_seconds"] for entry in served), UTC
    )
    live = SimulationResult(
        [entry["queue_seconds"] for entry in served], changes=_changes(server.get(), began)
    )
    scaling = LlamaServerSpec.model_validate(server_spec).autoscaling
    assert scaling
    slots = server_spec["slots"]
    scaler = SlotkeeperScaler(slots, scaling, began)
    simulated = Simulation(ReplicaModel(slots, load_seconds), scaler).run(requests)
    rows = [_row("live", live, SECONDS), _row("simulated", simulated, SECONDS)]
    columns = (
        *("", "p50", "p95", "p99", "<= 1 s", "desired replica-seconds"),
        "desired replicas, from second",
    )
    note = f"{len(requests)} requests; a replica took {load_seconds:.1f} s to load."
    return Findings("live", tables=[Table("One trace, live and simulated", columns, rows, note)])


def _row(name: str, result: SimulationResult, until: float) -> tuple[str, ...]:
    changes = [change for change in result.changes if change[0] < until]
    replica_seconds = sum(
        (after - at) * replicas for (at, replicas), (after, _) in pairwise([*changes, (until, 0)])
    )
    return (
        name,
        *(f"{percentile(result.waits, percent):.2f} s" for percent in (50, 95, 99)),
        f"{100 * share_within(result.waits, 1):.1f} %",
        f"{replica_seconds:.0f}",
        ", ".join(f"{replicas} from {at:.0f}" for at, replicas in changes),
    )


def _changes(raw: dict[str, Any], began: datetime) -> list[tuple[float, int]]:
    """Return the server's scaling decisions after `began`: seconds since then, and replicas."""
    history = sorted(raw["status"]["scaling"]["history"], key=lambda entry: str(entry["time"]))
    times = [(datetime.fromisoformat(entry["time"]) - began).total_seconds() for entry in history]
    changes = zip(times, (entry["to"] for entry in history), strict=True)
    return [(0.0, 1), *((at, replicas) for at, replicas in changes if at > 0)]


def _load_seconds(cluster: Cluster) -> Iterator[float]:
    """Yield the time from each replica's creation until it was ready, by its pod's status."""
    selector = ("-l", "slotkeeper.dev/component=replica")
    for pod in cluster.get("pods", *selector, namespace=NAMESPACE)["items"]:
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        for condition in pod["status"]["conditions"]:
            if condition["type"] == "Ready" and condition["status"] == "True":
                ready = datetime.fromisoformat(condition["lastTransitionTime"])
                yield (ready - created).total_seconds()


def _log(server: Server) -> Iterator[str]:
    selector = "slotkeeper.dev/component=balancer"
    yield from server.kubectl("logs", "-l", selector, "--tail=-1").splitlines()


def _served(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        entry = json.loads(line)
        if entry.get("replica") and not entry.get("relayed"):
            yield entry


if __name__ == "__main__":
    raise SystemExit(main())
