"""Children that cannot be written: rejections are reported, outages are not."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator, apply_server, condition, server_status
from slotkeeper.kube.cluster import ApiError, Unreachable
from slotkeeper.kube.kinds import DEPLOYMENTS
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
