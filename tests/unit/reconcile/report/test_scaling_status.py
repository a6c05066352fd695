"""What is said of scaling: whether demand rules, and the last ten changes."""

from datetime import timedelta
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    START,
    Operator,
    change_spec,
    condition,
    numbers,
    roll_out,
    server_status,
    stored,
)
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.kinds import DEPLOYMENTS


async def running(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server that serves, with a balancer that can be read."""
    stored(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.says["10.0.0.1"] = numbers(total=4)
    await operator.reconcile()


async def scaled(cluster: FakeCluster, operator: Operator, replicas: int) -> None:
    """A user says how many replicas there should be."""
    change_spec(cluster, lambda spec: spec.update(replicas=replicas))
    await operator.reconcile()


def verdict(cluster: FakeCluster) -> tuple[str, str]:
    found = condition(cluster, "ScalingActive")
    return found["status"], found["reason"]


async def test_without_autoscaling_demand_has_no_say(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator)

    assert verdict(cluster) == ("False", "ScalingDisabled")


async def test_before_the_first_numbers_nobody_knows(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, autoscaling={"maxReplicas": 2})

    assert verdict(cluster) == ("Unknown", "Starting")


async def test_to_keep_within_bounds_is_not_to_follow_numbers(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, replicas=5)
    await operator.reconcile()

    change_spec(cluster, lambda spec: spec.update(autoscaling={"maxReplicas": 2}))
    await operator.reconcile()

    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 2
    assert verdict(cluster) == ("Unknown", "Starting")


def at_noon(**passed: float) -> str:
    return rfc3339(START + timedelta(**passed))


async def following(cluster: FakeCluster, operator: Operator) -> None:
    """A server that demand has given two replicas, ten seconds after noon."""
    await running(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=2)
    await operator.pass_time(5)
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.says["10.0.0.1"] = numbers(busy=6, total=8)
    await operator.pass_time(5)


async def test_numbers_make_it_active_and_their_absence_says_since_when(
    cluster: FakeCluster, operator: Operator
) -> None:
    await following(cluster, operator)
    active = verdict(cluster)

    operator.balancers.says.clear()
    await operator.pass_time(30)
    first = condition(cluster, "ScalingActive")
    degraded = condition(cluster, "Degraded")
    await operator.pass_time(1200)
    last = condition(cluster, "ScalingActive")

    assert active == ("True", "ValidMetricFound")
    assert (first["status"], first["reason"]) == ("False", "MetricsUnavailable")
    assert first["message"].startswith("no metrics from any balancer")
    # Numbers are good for five seconds.
    assert first["lastTransitionTime"] == at_noon(seconds=16)
    assert last == first
    assert (degraded["status"], degraded["reason"]) == ("True", "MetricsUnavailable")


async def test_replicas_hold_while_no_balancer_tells_its_numbers(
    cluster: FakeCluster, operator: Operator
) -> None:
    await following(cluster, operator)
    cluster.writes.clear()

    operator.balancers.says.clear()
    await operator.pass_time(1200)

    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 2
    assert {write.kind for write in cluster.writes} == {"LlamaServer"}


async def test_numbers_that_come_again_make_it_active_and_begin_a_new_window(
    cluster: FakeCluster, operator: Operator
) -> None:
    await following(cluster, operator)
    operator.balancers.says.clear()
    await operator.pass_time(1200)

    operator.balancers.says["10.0.0.1"] = numbers(total=8)
    await operator.pass_time(8)
    again = condition(cluster, "ScalingActive")
    await operator.pass_time(295)
    held = cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]
    await operator.pass_time(8)

    assert (again["status"], again["reason"]) == ("True", "ValidMetricFound")
    assert again["lastTransitionTime"] > at_noon(seconds=1210)
    assert held == 2
    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 1


@pytest.mark.parametrize("settled", [False, True])
async def test_an_operator_that_starts_meanwhile_knows_since_when(
    cluster: FakeCluster, operator: Operator, settled: bool
) -> None:
    await following(cluster, operator)
    operator.balancers.says.clear()
    await operator.pass_time(30)
    before = condition(cluster, "ScalingActive")

    again = Operator(cluster, time=operator.time, balancers=operator.balancers)
    await again.reconcile()
    await again.pass_time(60 if settled else 1)

    assert condition(cluster, "ScalingActive") == before


async def test_a_server_at_zero_that_nobody_could_wake_says_so(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    operator.balancers.says["10.0.0.1"] = numbers(total=0)
    await operator.pass_time(10)

    operator.balancers.says.clear()
    await operator.pass_time(30)

    assert not server_status(cluster)["readyReplicas"]
    assert verdict(cluster) == ("False", "MetricsUnavailable")


async def test_the_last_ten_changes_are_kept_newest_first(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, replicas=1)
    for replicas in range(2, 14):
        operator.time.passed += 60
        await scaled(cluster, operator, replicas)

    decisions = server_status(cluster)["scaling"]["history"]

    assert [(each["from"], each["to"]) for each in decisions] == [
        (replicas - 1, replicas) for replicas in range(13, 3, -1)
    ]
    assert decisions[0]["reason"] == "Manual"
    assert decisions[0]["message"] == "spec.replicas is 13"
    assert decisions[0]["time"] > decisions[1]["time"]


@pytest.mark.parametrize("looks", [1, 5])
async def test_looking_again_adds_no_decision(
    cluster: FakeCluster, operator: Operator, looks: int
) -> None:
    await running(cluster, operator, replicas=1)
    await scaled(cluster, operator, 2)
    for _ in range(looks):
        await operator.reconcile()

    assert len(server_status(cluster)["scaling"]["history"]) == 1


async def test_a_decision_says_since_when_it_is_what_it_is(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, slots=4, autoscaling={"maxReplicas": 2})
    await operator.pass_time(1)
    steady = server_status(cluster)["scaling"]["lastTransitionTime"]

    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    await operator.pass_time(60)
    still = server_status(cluster)["scaling"]["lastTransitionTime"]
    operator.balancers.says["10.0.0.1"] = numbers(busy=4)
    await operator.pass_time(1)

    assert still == steady
    assert server_status(cluster)["scaling"]["lastTransitionTime"] > steady


async def test_replicas_that_are_there_stand_beside_those_that_are_wanted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await following(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(busy=8, queued=4, total=8)
    await operator.pass_time(5)
    scaling = server_status(cluster)["scaling"]
    roll_out(cluster)
    await operator.reconcile()

    assert (scaling["currentReplicas"], scaling["desiredReplicas"]) == (2, 3)
    assert server_status(cluster)["scaling"]["currentReplicas"] == 3
