"""A scale-down removes the least busy replicas, by the balancer's report at that moment."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    demand_report,
    replica_count,
    roll_out,
    update_spec,
)
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, NotFound
from slotkeeper.kube.kinds import PODS
from slotkeeper.reconcile.write.deletion_cost import costs

COST = "controller.kubernetes.io/pod-deletion-cost"


def pod(host: str, *, ready: bool = True, cost: str | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"replica-{host}",
            "namespace": "default",
            "uid": "1",
            "annotations": {"else": "x"} | ({} if cost is None else {COST: cost}),
        },
        "status": {"podIP": host, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


@pytest.mark.parametrize(
    ("replica", "cost"),
    [
        pytest.param(pod("10.0.0.1"), "2", id="busy"),
        pytest.param(pod("10.0.0.1", cost="5"), "2", id="less busy than annotated"),
        pytest.param(pod("10.0.0.1", cost="2"), None, id="as busy as annotated"),
        pytest.param(pod("10.0.0.2"), None, id="idle"),
        pytest.param(pod("10.0.0.2", cost="3"), "0", id="idle, annotated as busy"),
        pytest.param(pod("fd00::1"), "4", id="IPv6"),
        pytest.param(pod("10.0.0.1", ready=False), None, id="not ready: deleted first anyway"),
    ],
)
def test_the_cost_of_a_pod_is_written_where_it_differs(
    replica: dict[str, Any], cost: str | None
) -> None:
    written = list(costs([replica], {"10.0.0.1:8080": 2, "[fd00::1]:8080": 4}))

    expected = [{COST: cost}] if cost else []
    assert [each["metadata"]["annotations"] for each in written] == expected


async def deploy_three(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Deploy three replicas, of which the second has two busy slots."""
    apply_server(cluster, replicas=3, **spec)
    await operator.reconcile()
    roll_out(cluster)
    report_busy(operator, "10.0.0.2", 2)
    await operator.reconcile()
    await operator.run_for(1)


def report_busy(operator: Operator, host: str, slots: int) -> None:
    busy = {"busyByReplica": {f"{host}:8080": slots}}
    operator.balancers.reports[BALANCER_HOST] = demand_report() | busy


def written_costs(cluster: FakeCluster) -> dict[str, str]:
    """The deletion costs of the pods that have one, by name."""
    pods = cluster.by_name(PODS).values()
    return {
        each["metadata"]["name"]: each["metadata"]["annotations"][COST]
        for each in pods
        if COST in (each["metadata"].get("annotations") or {})
    }


async def test_a_scale_down_first_annotates_the_busy_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_three(cluster, operator)

    update_spec(cluster, replicas=1)
    cluster.writes.clear()
    await operator.reconcile()

    assert written_costs(cluster) == {"chat-replicas-1": "2"}
    assert [write.kind for write in cluster.writes][:2] == ["Pod", "Deployment"]


async def test_the_costs_are_those_at_the_moment_of_the_scale_down(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_three(cluster, operator)
    report_busy(operator, "10.0.0.3", 1)

    update_spec(cluster, replicas=1)
    await operator.reconcile()

    assert written_costs(cluster) == {"chat-replicas-2": "1"}


async def test_a_scale_up_writes_no_costs(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_three(cluster, operator)

    update_spec(cluster, replicas=4)
    await operator.reconcile()

    assert written_costs(cluster) == {}


async def test_a_report_without_busy_slots_by_replica_does_not_delay_a_scale_down(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_three(cluster, operator)
    operator.balancers.reports[BALANCER_HOST] = demand_report()

    update_spec(cluster, replicas=1)
    await operator.reconcile()

    assert written_costs(cluster) == {}
    assert replica_count(cluster) == 1


@pytest.mark.parametrize(
    "error", [NotFound(404, "NotFound", "gone"), ApiError(403, "Forbidden", "no")]
)
async def test_a_pod_that_cannot_be_annotated_does_not_delay_a_scale_down(
    cluster: FakeCluster, operator: Operator, error: ApiError
) -> None:
    await deploy_three(cluster, operator)
    cluster.fail(error, kind=PODS)

    update_spec(cluster, replicas=1)
    await operator.reconcile()

    assert replica_count(cluster) == 1


async def test_the_pods_of_groups_get_no_costs(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_three(cluster, operator, gpu={"count": 1}, workers={"count": 1})

    update_spec(cluster, replicas=1)
    await operator.reconcile()

    assert written_costs(cluster) == {}


def test_the_annotation_is_the_one_that_kubernetes_reads() -> None:
    assert names.DELETION_COST_ANNOTATION == COST
