"""A real server on a real cluster, and the same requests simulated beside it.

    PYTHONPATH=e2e python -m bench.autoscale.live

Real llama-servers, the real balancer and the real operator take a trace of six minutes. What the
balancer's access log tells of it is then simulated, with the same spec and the loading time that
was measured: as often as the two differ, the simulation is wrong.
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
from slotkeeper.simulation.simulate import Outcome, ReplicaModel, Simulation
from slotkeeper.simulation.slotkeeper_policy import Slots
from slotkeeper.simulation.trace import TraceRequest, recorded, write
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
    """A little, then for a minute and a half five times as much, then a little."""
    rng = Random(1)
    at = 0.0
    calls = list[TraceRequest]()
    while (at := at + rng.expovariate(1.0 if int(at) in BURST else 0.2)) < SECONDS:
        calls.append(TraceRequest(at, rng.uniform(1, 5)))
    return calls


def main() -> int:
    """Measure, report, and take the cluster down again."""
    cluster = Cluster(NAME)
    up(cluster)
    try:
        findings = _measure(cluster)
    finally:
        cluster.call("down")
    text = markdown("The simulation beside a real server", [findings], {})
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "autoscale-live.md").write_text(text)
    print(text)
    return 0


def _measure(cluster: Cluster) -> Findings:
    cluster.kubectl("create", "namespace", NAMESPACE)
    server = Server(cluster, NAMESPACE, "llama")
    what = spec(SLOW, autoscaling=SCALING)
    server.ready(what)
    sent = io.StringIO()
    write(trace(), sent)
    cluster.read(
        *("run", sys.executable, "-m", "bench.autoscale.live_load", server.url),
        stdin=sent.getvalue(),
    )
    load_seconds = max(_load_seconds(cluster))
    lines = list(_log(server))
    calls = recorded(lines)
    served = list(_served(lines))
    # As the trace that was recorded does, all begins with the first request.
    began = datetime.fromtimestamp(
        min(one["time"] - one["duration_seconds"] for one in served), UTC
    )
    live = Outcome([one["queue_seconds"] for one in served], changes=_replicas(server.get(), began))
    scaling = LlamaServerSpec.model_validate(what).autoscaling
    assert scaling
    ours = Slots(what["slots"], scaling, began)
    simulated = Simulation(ReplicaModel(what["slots"], load_seconds), ours).run(calls)
    rows = [_row("live", live, SECONDS), _row("simulated", simulated, SECONDS)]
    columns = ("", "p50", "p95", "p99", "<= 1 s", "wanted replica-seconds", "wanted, from second")
    note = f"{len(calls)} requests; a replica took {load_seconds:.1f} s to load."
    return Findings("live", tables=[Table("One trace, twice", columns, rows, note)])


def _row(name: str, outcome: Outcome, until: float) -> tuple[str, ...]:
    steps = [step for step in outcome.changes if step[0] < until]
    wanted = sum(
        (after - at) * number for (at, number), (after, _) in pairwise([*steps, (until, 0)])
    )
    return (
        name,
        *(f"{percentile(outcome.waits, percent):.2f} s" for percent in (50, 95, 99)),
        f"{100 * share_within(outcome.waits, 1):.1f} %",
        f"{wanted:.0f}",
        ", ".join(f"{number} from {at:.0f}" for at, number in steps),
    )


def _replicas(raw: dict[str, Any], began: datetime) -> list[tuple[float, int]]:
    """What was decided since: seconds after it, and how many replicas."""
    decisions = sorted(raw["status"]["scaling"]["history"], key=lambda one: str(one["time"]))
    times = [(datetime.fromisoformat(one["time"]) - began).total_seconds() for one in decisions]
    later = zip(times, (one["to"] for one in decisions), strict=True)
    return [(0.0, 1), *((at, to) for at, to in later if at > 0)]


def _load_seconds(cluster: Cluster) -> Iterator[float]:
    """From each replica's creation until it was ready, as the events of its pod tell it."""
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
        said = json.loads(line)
        if said.get("replica") and not said.get("relayed"):
            yield said


if __name__ == "__main__":
    raise SystemExit(main())
