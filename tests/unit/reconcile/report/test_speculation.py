"""status.speculative and the reason SpeculationInactive, as the leader reports them."""

from typing import Any

import balancer_reports
from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    condition,
    demand_report,
    deploy,
    event_messages,
    server_status,
)

NGRAM = {"type": "ngram-mod"}
REPLICA = "10.0.0.1:8080"
ACCEPTED = {"acceptancePercent": 72, "inactiveReplicas": 0}


async def poll(operator: Operator, *inactive: str, percent: int | None = None) -> None:
    """The leader reports these replicas without speculation, and this rate."""
    speculation: dict[str, Any] = {"inactive": list(inactive), "acceptancePercent": percent}
    await balancer_reports.poll(operator, demand_report() | {"speculation": speculation})


async def test_the_acceptance_rate_is_shown_once_there_is_one(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, speculative=NGRAM)
    assert "speculative" not in server_status(cluster)

    await poll(operator)
    assert server_status(cluster)["speculative"] == {"inactiveReplicas": 0}
    await poll(operator, percent=72)
    assert server_status(cluster)["speculative"] == ACCEPTED
    assert condition(cluster, "Degraded")["status"] == "False"
    cluster.writes.clear()
    await poll(operator, percent=72)
    assert cluster.writes == []


async def test_a_server_without_speculative_decoding_has_no_such_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    await poll(operator, REPLICA, percent=72)

    assert "speculative" not in server_status(cluster)
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_a_replica_that_serves_without_it_is_a_problem_until_it_does_not(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, speculative=NGRAM)
    await poll(operator, "10.9.9.9:8080")
    assert condition(cluster, "Degraded")["status"] == "False"

    await poll(operator, REPLICA)

    degraded = condition(cluster, "Degraded")
    message = (
        "chat-replicas-0: llama-server serves without ngram-mod; its log says why at "
        '"failed to initialize speculative decoding"'
    )
    assert (degraded["status"], degraded["reason"]) == ("True", "SpeculationInactive")
    assert degraded["message"] == message
    assert event_messages(cluster, "SpeculationInactive") == [message]
    assert condition(cluster, "Ready")["status"] == "True"

    await poll(operator)
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_without_a_report_the_last_one_is_kept(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, speculative=NGRAM)
    await poll(operator, REPLICA, percent=5)

    operator.balancers.reports.clear()
    await operator.run_for(120)

    shown = {"acceptancePercent": 5, "inactiveReplicas": 1}
    assert server_status(cluster)["speculative"] == shown
    assert condition(cluster, "Degraded")["reason"] == "SpeculationInactive"
