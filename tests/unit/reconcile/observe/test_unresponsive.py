"""Replicas that run and do not respond, as their pods or their balancer show it."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    roll_out,
    set_pod_status,
)
from pod_statuses import llama_server

START = "2026-11-01T12:00:00Z"
LATER = "2026-11-01T12:30:00Z"


def running(*, since: str, started: bool = True) -> Any:
    status = llama_server(started=started, state={"running": {"startedAt": START}})
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": since}
    return status | {"conditions": [ready]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (running(since=LATER), "ReplicaUnresponsive"),
        (running(since=START), "LoadingModel"),
        (running(since="2026-11-01T12:00:02Z"), "LoadingModel"),
        (running(since="2026-11-01T12:00:25Z"), "ReplicaUnresponsive"),
        (running(since="2026-11-01T11:59:00Z"), "LoadingModel"),
        (running(since=LATER, started=False), "LoadingModel"),
    ],
)
async def test_a_pod_that_was_ready_and_still_runs_is_unresponsive(
    cluster: FakeCluster, operator: Operator, status: Any, reason: str
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    set_pod_status(cluster, status)
    await operator.reconcile()
    found = condition(cluster, "ReplicasReady")

    unresponsive = reason == "ReplicaUnresponsive"
    assert (found["reason"] == "ReplicaUnresponsive") == unresponsive
    assert condition(cluster, "Degraded")["status"] == str(unresponsive)
    if unresponsive:
        assert "replica chat-replicas-0 does not respond on /health" in found["message"]


async def test_a_replica_that_its_balancer_reports_is_unresponsive_until_it_is_not(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    roll_out(cluster)
    for listed, status in ((["10.0.0.1:8080", "10.9.9.9:8080"], "True"), ([], "False")):
        report = demand_report() | {"unresponsive": listed}
        operator.balancers.reports[BALANCER_HOST] = report
        await operator.run_for(70)

        assert condition(cluster, "Degraded")["status"] == status
        assert condition(cluster, "ReplicasReady")["status"] == "True"
        passes = len(operator.passes)
        await operator.run_for(70)
        assert len(operator.passes) == passes
        if listed:
            message = condition(cluster, "Degraded")["message"]
            assert "replica chat-replicas-0 does not respond on /slots" in message
