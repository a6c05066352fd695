"""What is said of scaling: whether demand rules, and the last ten changes."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operating import Operator, change_spec, condition, numbers, roll_out, server_status, stored
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

    assert verdict(cluster) == ("False", "NotAutoscaled")


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


async def test_numbers_make_it_active_and_their_absence_says_since_when(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, autoscaling={"maxReplicas": 2})
    await operator.pass_time(2)
    assert verdict(cluster) == ("True", "FollowsDemand")

    operator.balancers.says.clear()
    await operator.pass_time(30)

    assert verdict(cluster) == ("False", "NoNumbers")
    since = condition(cluster, "ScalingActive")["lastTransitionTime"]
    assert condition(cluster, "Degraded")["reason"] == "NoNumbers"
    await operator.pass_time(300)
    assert condition(cluster, "ScalingActive")["lastTransitionTime"] == since


async def test_the_last_ten_changes_are_kept_newest_first(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, replicas=1)
    for replicas in range(2, 14):
        operator.time.passed += 60
        await scaled(cluster, operator, replicas)

    decisions = server_status(cluster)["scaling"]["decisions"]

    assert [(each["before"], each["after"]) for each in decisions] == [
        (replicas - 1, replicas) for replicas in range(13, 3, -1)
    ]
    assert decisions[0]["reason"] == "Fixed"
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

    assert len(server_status(cluster)["scaling"]["decisions"]) == 1


async def test_a_decision_says_since_when_it_is_what_it_is(
    cluster: FakeCluster, operator: Operator
) -> None:
    await running(cluster, operator, slots=4, autoscaling={"maxReplicas": 2})
    await operator.pass_time(1)
    steady = server_status(cluster)["scaling"]["since"]

    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    await operator.pass_time(60)
    still = server_status(cluster)["scaling"]["since"]
    operator.balancers.says["10.0.0.1"] = numbers(busy=4)
    await operator.pass_time(1)

    assert still == steady
    assert server_status(cluster)["scaling"]["since"] > steady
