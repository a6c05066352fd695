"""Children that cannot be written: rejections are reported, outages are not."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    event_messages,
    server_status,
    update_spec,
)
from slotkeeper.kube.cluster import ApiError, Unreachable
from slotkeeper.kube.kinds import DEPLOYMENTS, SERVICES, STATEFUL_SETS
from slotkeeper.reconcile.report.conditions import MAX_MESSAGE


async def test_the_message_of_a_rejection_is_in_the_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    cluster.fail(ApiError(403, "Forbidden", "exceeded quota: pods"), "apply", DEPLOYMENTS)

    with pytest.raises(ApiError):
        await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["reason"], ready["message"]) == ("ApplyRejected", "exceeded quota: pods")


async def test_an_enormous_message_of_a_rejection_is_cut(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    cluster.fail(ApiError(403, "Forbidden", "x" * 100_000), "apply", DEPLOYMENTS)

    with pytest.raises(ApiError):
        await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["reason"], ready["message"]) == ("ApplyRejected", "x" * MAX_MESSAGE)


async def test_an_unreachable_api_server_changes_no_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    cluster.fail(Unreachable(0, "", "cut"), "apply")

    with pytest.raises(Unreachable):
        await operator.reconcile()

    assert server_status(cluster) == {}


REJECTED = ApiError(403, "Forbidden", "denied by policy")
UNAVAILABLE = ApiError(500, "InternalError", "etcdserver: leader changed")


@pytest.mark.parametrize("error", [REJECTED, UNAVAILABLE], ids=["rejected", "unavailable"])
async def test_a_scale_up_is_reported_though_a_later_write_of_the_same_plan_fails(
    cluster: FakeCluster, operator: Operator, error: ApiError
) -> None:
    autoscaling = {"minReplicas": 1, "maxReplicas": 3}
    await deploy(cluster, operator, slots=4, workers={"count": 2}, autoscaling=autoscaling)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    # Deletions come last in a plan.
    cluster.fail(error, "delete", STATEFUL_SETS)
    update_spec(cluster, workers={"count": 1})

    await operator.run_for(1)
    cluster.recover()
    await operator.run_for(10)

    assert cluster.by_name(STATEFUL_SETS)["chat-replicas"]["spec"]["replicas"] == 2
    assert len(event_messages(cluster, "ScaledUp")) == 1
    [line] = server_status(cluster)["scaling"]["history"]
    assert (line["from"], line["to"], line["reason"]) == (1, 2, "DemandAboveCapacity")
    assert [change.replicas for change in operator.state.demand.changes] == [1]


@pytest.mark.parametrize("error", [REJECTED, UNAVAILABLE], ids=["rejected", "unavailable"])
async def test_a_corrected_drift_is_reported_though_a_later_write_of_the_same_plan_fails(
    cluster: FakeCluster, operator: Operator, error: ApiError
) -> None:
    await deploy(cluster, operator)
    cluster.remove(SERVICES, "default", "chat")
    cluster.fail(error, "apply", DEPLOYMENTS)
    update_spec(cluster, slots=8)

    with pytest.raises(ApiError):
        await operator.reconcile()
    cluster.recover()
    await operator.run_for(10)

    assert event_messages(cluster, "DriftCorrected") == ["Service chat was deleted; created again"]
    corrections = "slotkeeper_operator_drift_corrections_total"
    assert operator.registry.get_sample_value(corrections, {"kind": "Service"}) == 1
