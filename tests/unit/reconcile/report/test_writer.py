"""A change is reported once, in an event and in the status, though the status cannot be written."""

from collections.abc import Callable

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    demand_report,
    deploy,
    event_messages,
    replica_count,
    server_status,
    update_spec,
)
from slotkeeper.kube.cluster import ApiError, Unreachable
from slotkeeper.kube.kinds import LLAMA_SERVERS

UNREACHABLE = Unreachable(0, "Unreachable", "connection reset")
UNAVAILABLE = ApiError(500, "InternalError", "etcdserver: request timed out")


def fail_status(cluster: FakeCluster) -> None:
    cluster.fail(UNAVAILABLE, "patch_status")


def lose_connection(cluster: FakeCluster) -> None:
    """Accept the scale-up, and nothing after it."""
    cluster.inject_error = lambda verb, _: UNREACHABLE if verb != "apply" else None


def lose_response(cluster: FakeCluster) -> None:
    """Write the status that follows the scale-up, and lose the response."""
    cluster.raise_after_write = {2: UNREACHABLE}


def edit_meanwhile(cluster: FakeCluster) -> None:
    """Let a user edit the server at the first write of its status, so that it is a conflict."""

    def inject(verb: str, _: object) -> None:
        if verb == "patch_status":
            cluster.recover()
            cluster.edit(
                LLAMA_SERVERS, *KEY, lambda raw: raw["metadata"].update(annotations={"a": "b"})
            )

    cluster.inject_error = inject


FAULTS = [fail_status, lose_connection, lose_response, edit_meanwhile]


async def deploy_autoscaled(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy a server with one replica that demand may scale to three."""
    await deploy(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(1)
    cluster.writes.clear()


async def recover(cluster: FakeCluster, operator: Operator) -> None:
    cluster.recover()
    cluster.raise_after_write = {}
    await operator.run_for(10)


def history(cluster: FakeCluster) -> list[tuple[int, int]]:
    """From and to of each change, newest first."""
    lines = server_status(cluster)["scaling"]["history"]
    return [(line["from"], line["to"]) for line in lines]


async def test_a_pass_that_writes_ends_there_and_the_next_one_reports(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_autoscaled(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    operator.time.elapsed += 1
    await operator.runtime.poll_demand()

    await operator.reconciler.reconcile(KEY)
    first = list(cluster.writes), event_messages(cluster, "ScaledUp")
    await operator.reconciler.reconcile(KEY)

    assert first == ([Write("apply", "Deployment", "chat-replicas")], [])
    assert cluster.writes[1:] == [Write("patch_status", "LlamaServer", "chat")]
    assert len(event_messages(cluster, "ScaledUp")) == 1
    assert history(cluster) == [(1, 2)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_scale_up_is_reported_once_though_its_status_cannot_be_written(
    cluster: FakeCluster, operator: Operator, fault: Callable[[FakeCluster], None]
) -> None:
    await deploy_autoscaled(cluster, operator)
    fault(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)

    await operator.run_for(10)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, total=8)
    await recover(cluster, operator)

    assert replica_count(cluster) == 2
    [message] = event_messages(cluster, "ScaledUp")
    assert message.endswith(": 1 -> 2")
    [line] = server_status(cluster)["scaling"]["history"]
    assert (line["from"], line["to"], line["reason"]) == (1, 2, "DemandAboveCapacity")
    assert not operator.state.events
    assert operator.state.unreported is None


async def test_several_scale_ups_without_a_status_are_one_line_of_the_history(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_autoscaled(cluster, operator)
    fail_status(cluster)

    for replicas in (1, 2):
        busy = 4 * replicas
        report = demand_report(busy=busy, queued=1, total=busy)
        operator.balancers.reports[BALANCER_HOST] = report
        await operator.run_for(10)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=9, total=12)
    await recover(cluster, operator)

    assert len(event_messages(cluster, "ScaledUp")) == 2
    assert history(cluster) == [(1, 3)]


async def test_a_scale_up_after_a_lost_response_has_its_own_line(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_autoscaled(cluster, operator)
    lose_response(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    operator.time.elapsed += 1
    await operator.runtime.poll_demand()
    with pytest.raises(Unreachable):
        await operator.run_passes()

    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=8, queued=1, total=8)
    operator.time.elapsed += 1
    await operator.runtime.poll_demand()
    await operator.reconcile()

    assert len(event_messages(cluster, "ScaledUp")) == 2
    assert history(cluster) == [(2, 3), (1, 2)]


async def test_a_scale_up_is_reported_though_the_spec_is_invalid_before_the_next_pass(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_autoscaled(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    operator.time.elapsed += 1
    await operator.runtime.poll_demand()
    await operator.reconciler.reconcile(KEY)
    update_spec(cluster, slots=0)

    await operator.reconcile()
    update_spec(cluster, slots=4)
    await operator.reconcile()

    assert len(event_messages(cluster, "ScaledUp")) == 1
    assert history(cluster) == [(1, 2)]
