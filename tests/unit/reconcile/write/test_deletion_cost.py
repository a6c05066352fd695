"""Of too many replicas the idlest goes, by what the balancer tells of each."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, change_spec, numbers, roll_out, stored
from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, NotFound
from slotkeeper.kube.kinds import DEPLOYMENTS, PODS
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
    ("made", "cost"),
    [
        pytest.param(pod("10.0.0.1"), "2", id="busy"),
        pytest.param(pod("10.0.0.1", cost="5"), "2", id="less busy than it was"),
        pytest.param(pod("10.0.0.1", cost="2"), None, id="as busy as it was"),
        pytest.param(pod("10.0.0.2"), None, id="idle"),
        pytest.param(pod("10.0.0.2", cost="3"), "0", id="idle by now"),
        pytest.param(pod("fd00::1"), "4", id="IPv6"),
        pytest.param(pod("10.0.0.1", ready=False), None, id="not ready: it goes first anyhow"),
    ],
)
def test_what_a_deletion_costs_is_said_where_it_is_said_otherwise(
    made: dict[str, Any], cost: str | None
) -> None:
    said = list(costs([made], {"10.0.0.1:8080": 2, "[fd00::1]:8080": 4}))

    assert [each["metadata"]["annotations"] for each in said] == ([{COST: cost}] if cost else [])


async def three_replicas(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Serving, of which the second has two busy slots."""
    stored(cluster, replicas=3, **spec)
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.says["10.0.0.1"] = numbers() | {"busyByReplica": {"10.0.0.2:8080": 2}}
    await operator.reconcile()
    await operator.pass_time(1)


def said(cluster: FakeCluster) -> dict[str, str]:
    pods = cluster.named(PODS).values()
    return {
        each["metadata"]["name"]: each["metadata"]["annotations"][COST]
        for each in pods
        if COST in (each["metadata"].get("annotations") or {})
    }


async def test_a_scale_down_says_first_which_replicas_are_busy(
    cluster: FakeCluster, operator: Operator
) -> None:
    await three_replicas(cluster, operator)

    change_spec(cluster, lambda spec: spec.update(replicas=1))
    cluster.writes.clear()
    await operator.reconcile()

    assert said(cluster) == {"chat-replicas-1": "2"}
    assert [write.kind for write in cluster.writes][:2] == ["Pod", "Deployment"]


async def test_what_counts_is_who_is_busy_at_that_moment(
    cluster: FakeCluster, operator: Operator
) -> None:
    await three_replicas(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers() | {"busyByReplica": {"10.0.0.3:8080": 1}}

    change_spec(cluster, lambda spec: spec.update(replicas=1))
    await operator.reconcile()

    assert said(cluster) == {"chat-replicas-2": "1"}


async def test_a_scale_up_says_nothing(cluster: FakeCluster, operator: Operator) -> None:
    await three_replicas(cluster, operator)

    change_spec(cluster, lambda spec: spec.update(replicas=4))
    await operator.reconcile()

    assert said(cluster) == {}


async def test_a_balancer_that_tells_nothing_of_its_replicas_holds_nothing_up(
    cluster: FakeCluster, operator: Operator
) -> None:
    await three_replicas(cluster, operator)
    operator.balancers.says["10.0.0.1"] = numbers()

    change_spec(cluster, lambda spec: spec.update(replicas=1))
    await operator.reconcile()

    assert said(cluster) == {}
    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    "error", [NotFound(404, "NotFound", "gone"), ApiError(403, "Forbidden", "no")]
)
async def test_a_pod_that_cannot_be_written_holds_nothing_up(
    cluster: FakeCluster, operator: Operator, error: ApiError
) -> None:
    await three_replicas(cluster, operator)
    cluster.refuse = lambda _, manifest: error if manifest["kind"] == "Pod" else None

    change_spec(cluster, lambda spec: spec.update(replicas=1))
    await operator.reconcile()

    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"] == 1


async def test_the_pods_of_groups_are_told_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    await three_replicas(cluster, operator, gpu={"count": 1}, workers={"count": 1})

    change_spec(cluster, lambda spec: spec.update(replicas=1))
    await operator.reconcile()

    assert said(cluster) == {}


def test_the_annotation_is_the_one_that_kubernetes_reads() -> None:
    assert names.DELETION_COST_ANNOTATION == COST
