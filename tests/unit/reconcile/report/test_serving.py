"""A server is not Ready while its balancers report that they cannot serve."""

from datetime import timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    START,
    Operator,
    condition,
    demand_report,
    deploy,
    event_reasons,
    pod_of,
)
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS

NO_SLOTS = demand_report(total=0)
STANDBY = demand_report() | {"leader": False}


def stale(seconds: float) -> Any:
    return demand_report() | {"viewAgeSeconds": seconds}


def set_ready_since(cluster: FakeCluster, seconds: float) -> None:
    """Make the replica ready at so many seconds after the start."""

    def change(pod: Any) -> None:
        since = rfc3339(START + timedelta(seconds=seconds))
        pod["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastTransitionTime": since}
        ]

    cluster.edit(PODS, "default", "chat-replicas-0", change)


def reasons(cluster: FakeCluster) -> tuple[str, str, str]:
    """Ready's status, BalancerReady's reason and Degraded's status."""
    ready, balancer, degraded = (
        condition(cluster, kind) for kind in ("Ready", "BalancerReady", "Degraded")
    )
    assert (ready["status"] == "True") is (balancer["status"] == "True")
    return ready["status"], balancer["reason"], degraded["status"]


SERVES = ("True", "BalancerAvailable", "False")


async def test_a_replica_that_is_primed_for_long_is_no_problem(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, prime={"learned": True})
    set_ready_since(cluster, 0)
    prime = {"reason": "Active", "message": ""}
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS | {"prime": prime | {"replicas": 1}}
    await operator.run_for(60)
    assert reasons(cluster) == SERVES

    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS | {"prime": prime | {"replicas": 0}}
    await operator.run_for(18)
    assert reasons(cluster) == ("False", "NoSlots", "True")


@pytest.mark.parametrize("autoscaling", [None, {"maxReplicas": 1}])
async def test_ready_replicas_beside_a_balancer_without_slots_are_not_ready(
    cluster: FakeCluster, operator: Operator, autoscaling: Any
) -> None:
    await deploy(cluster, operator, **({"autoscaling": autoscaling} if autoscaling else {}))
    set_ready_since(cluster, 0)
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS
    await operator.run_for(14)
    assert reasons(cluster) == SERVES
    await operator.run_for(4)

    assert reasons(cluster) == ("False", "NoSlots", "True")
    assert event_reasons(cluster, "Warning").count("NoSlots") == 1
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(2)
    assert reasons(cluster) == SERVES


async def test_a_replica_that_has_just_become_ready_is_not_expected_to_be_in_use(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS
    await operator.run_for(100)
    set_ready_since(cluster, 100)
    await operator.run_for(13)
    assert reasons(cluster) == SERVES
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(60)

    assert reasons(cluster) == SERVES


async def test_a_new_leader_without_slots_for_some_seconds_changes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    set_ready_since(cluster, 0)
    for _ in range(3):
        operator.balancers.reports[BALANCER_HOST] = NO_SLOTS
        await operator.run_for(10)
        operator.balancers.reports[BALANCER_HOST] = demand_report()
        await operator.run_for(2)
        assert reasons(cluster) == SERVES

    assert event_reasons(cluster, "Warning") == []


async def test_no_slots_without_a_ready_replica_is_no_problem_of_the_balancer(
    cluster: FakeCluster, operator: Operator
) -> None:
    to_zero = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 10}
    await deploy(cluster, operator, autoscaling=to_zero)
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS
    await operator.run_for(60)

    assert condition(cluster, "BalancerReady")["reason"] == "BalancerAvailable"


async def test_a_balancer_with_an_old_view_is_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = stale(120)
    await operator.run_for(2)
    assert reasons(cluster) == SERVES
    operator.balancers.reports[BALANCER_HOST] = stale(42 * 60)
    await operator.run_for(2)

    assert reasons(cluster) == ("False", "StaleEndpoints", "True")
    assert "42 min old" in condition(cluster, "Ready")["message"]
    operator.balancers.reports[BALANCER_HOST] = stale(1)
    await operator.run_for(2)
    assert reasons(cluster) == SERVES


async def test_a_standby_with_an_old_view_counts_too(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, balancer={"replicas": 2})
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    operator.balancers.reports["10.0.0.2"] = STANDBY | {"viewAgeSeconds": 500}
    await operator.run_for(2)

    assert reasons(cluster) == ("False", "StaleEndpoints", "True")


async def test_balancers_without_a_leader_are_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, balancer={"replicas": 2})
    for host in (BALANCER_HOST, "10.0.0.2"):
        operator.balancers.reports[host] = STANDBY
    await operator.run_for(14)
    assert reasons(cluster) == SERVES
    await operator.run_for(4)

    assert reasons(cluster) == ("False", "NoLeader", "True")
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(2)
    assert reasons(cluster) == SERVES


async def test_a_balancer_that_is_not_polled_may_be_the_leader(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, balancer={"replicas": 2})
    operator.balancers.reports[BALANCER_HOST] = STANDBY
    await operator.run_for(60)
    assert reasons(cluster) == SERVES
    other = pod_of(cluster.by_name(DEPLOYMENTS)["chat-balancer"], 1, ready=False)
    cluster.put(other)
    await operator.run_for(60)

    assert reasons(cluster)[1] == "BalancerAvailable"


async def test_a_restarted_operator_keeps_the_problem_until_reports_show_its_end(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    set_ready_since(cluster, 0)
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS
    await operator.run_for(20)
    restarted = Operator(cluster, operator.time, operator.balancers)
    await restarted.reconcile()
    for _ in range(20):
        await restarted.run_for(1)
        assert reasons(cluster) == ("False", "NoSlots", "True")

    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await restarted.run_for(2)
    assert reasons(cluster) == SERVES


async def test_a_server_whose_replicas_are_all_unresponsive_is_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    set_ready_since(cluster, 0)
    operator.balancers.reports[BALANCER_HOST] = NO_SLOTS | {"unresponsive": ["10.0.0.1:8080"]}
    await operator.run_for(60)

    assert condition(cluster, "Ready")["reason"] == "NoSlots"
    assert condition(cluster, "Degraded")["reason"] == "ReplicaUnresponsive"
