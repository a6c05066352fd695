"""A server that may have no replica at all: it goes to none when idle, and wakes."""

from typing import Any

from fake_cluster import FakeCluster
from operator_harness import Operator, condition, numbers, roll_out, server_status, stored
from slotkeeper.kube.kinds import DEPLOYMENTS

TO_ZERO = {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 30}


def replicas(cluster: FakeCluster) -> Any:
    return cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]


async def at_zero(cluster: FakeCluster, operator: Operator) -> None:
    """A server at zero whose balancer runs, and whose waiting requests are none."""
    stored(cluster, autoscaling=TO_ZERO)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.says["10.0.0.1"] = numbers(total=0)
    await operator.pass_time(2)


async def woken(cluster: FakeCluster, operator: Operator) -> None:
    """A server that a request has woken, with one replica that serves it."""
    await at_zero(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)
    roll_out(cluster)
    await operator.reconcile()
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    await operator.pass_time(1)


async def test_a_new_server_has_a_balancer_and_no_replica(
    cluster: FakeCluster, operator: Operator
) -> None:
    await at_zero(cluster, operator)

    assert replicas(cluster) == 0
    assert cluster.named(DEPLOYMENTS)["chat-balancer"]["spec"]["replicas"] == 1
    assert condition(cluster, "ReplicasReady")["reason"] == "ScaledToZero"
    assert condition(cluster, "ModelReady")["reason"] == "ScaledToZero"
    assert server_status(cluster)["scaling"]["reason"] == "DesiredWithinRange"


async def test_one_that_sleeps_is_ready_for_whoever_wakes_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    await at_zero(cluster, operator)
    asleep = condition(cluster, "Ready")
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)
    roll_out(cluster, ready=False)
    await operator.reconcile()
    waking = condition(cluster, "Ready")

    assert (asleep["status"], asleep["reason"]) == ("True", "ScaledToZero")
    assert asleep["message"].startswith("scaled to zero; the next request to http://chat.")
    assert waking["status"] == "False"


async def test_one_that_sleeps_without_a_balancer_is_not_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, autoscaling=TO_ZERO)
    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "False"


async def test_a_waiting_request_wakes_it_at_the_next_look(
    cluster: FakeCluster, operator: Operator
) -> None:
    await at_zero(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1, oldest=0.4)

    await operator.pass_time(1)

    scaling = server_status(cluster)["scaling"]
    assert replicas(cluster) == 1
    assert scaling["reason"] == "DemandAboveCapacity"
    assert scaling["message"] == "busy 0/0, queued 1, oldest 0.4 s: 0 -> 1"


async def test_a_replica_that_loads_is_awaited(cluster: FakeCluster, operator: Operator) -> None:
    await at_zero(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)
    roll_out(cluster, ready=False)

    await operator.reconcile()
    await operator.pass_time(60)

    assert replicas(cluster) == 1
    assert condition(cluster, "ReplicasReady")["status"] == "False"


async def test_it_serves_when_its_first_replica_does(
    cluster: FakeCluster, operator: Operator
) -> None:
    await woken(cluster, operator)

    assert condition(cluster, "Ready")["status"] == "True"


async def test_the_last_replica_goes_after_the_idle_time_and_not_before(
    cluster: FakeCluster, operator: Operator
) -> None:
    await woken(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers()

    await operator.pass_time(30)
    before = replicas(cluster)
    await operator.pass_time(1)

    assert (before, replicas(cluster)) == (1, 0)
    assert server_status(cluster)["scaling"]["reason"] == "Idle"


async def test_an_operator_that_starts_anew_waits_the_whole_idle_time(
    cluster: FakeCluster, operator: Operator
) -> None:
    await woken(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers()
    await operator.pass_time(29)

    again = Operator(cluster, balancers=operator.balancers)
    await again.reconcile()
    await again.pass_time(30)
    before = replicas(cluster)
    await again.pass_time(1)

    assert (before, replicas(cluster)) == (1, 0)


async def test_a_request_while_it_goes_brings_it_back(
    cluster: FakeCluster, operator: Operator
) -> None:
    await woken(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers()
    await operator.pass_time(31)
    assert replicas(cluster) == 0

    operator.balancers.says["10.0.0.1"] = numbers(total=0, queued=1)
    await operator.pass_time(1)

    assert replicas(cluster) == 1


async def test_a_balancer_that_is_silent_at_zero_changes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await woken(cluster, operator)
    operator.balancers.says.clear()

    await operator.pass_time(400)

    assert replicas(cluster) == 1


async def test_at_rest_at_zero_nothing_is_written(cluster: FakeCluster, operator: Operator) -> None:
    await at_zero(cluster, operator)
    await operator.pass_time(400)
    cluster.writes.clear()

    await operator.pass_time(400)

    assert cluster.writes == []
