"""Children that cannot be written: rejections are reported, outages are not."""

import itertools
from collections.abc import Iterator

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    event_messages,
    event_reasons,
    published_blocker,
    server_status,
    update_spec,
)
from slotkeeper.kube.cluster import ApiError, Conflict, Manifest, Unreachable
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


async def test_a_conflict_without_an_existing_object_is_retried_with_back_off(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    message = 'Operation cannot be fulfilled on resourcequotas "gpus"'
    cluster.fail(Conflict(409, "Conflict", message), "apply", SERVICES)

    with pytest.raises(Conflict):
        await operator.reconcile()
    cluster.recover()
    await operator.run_for(10)

    assert len(operator.passes) <= 4
    assert "chat" in cluster.by_name(SERVICES)


VARYING = [
    pytest.param("denied at 12:00:{:02}", id="time"),
    pytest.param("denied (request id 7f3a{:04x})", id="request id"),
    pytest.param("exceeded quota: used: pods={}", id="count"),
]


def reject_deployments(cluster: FakeCluster, messages: Iterator[str]) -> None:
    """Reject Deployments, each time with the next of these messages."""

    def inject(verb: str, manifest: Manifest) -> ApiError | None:
        if (verb, manifest["kind"]) != ("apply", "Deployment"):
            return None
        return ApiError(403, "Forbidden", next(messages))

    cluster.inject_error = inject


@pytest.mark.parametrize("template", VARYING)
async def test_a_rejection_whose_message_varies_is_retried_with_back_off_and_reported_once(
    cluster: FakeCluster, operator: Operator, template: str
) -> None:
    await deploy(cluster, operator)
    reject_deployments(cluster, map(template.format, itertools.count(1)))
    update_spec(cluster, slots=8)
    operator.passes.clear()

    await operator.run_for(600)

    # One pass to apply, one to report; then after 2, 4, … 256 s at the most, and half of it at the
    # least.
    assert 2 + 8 <= len(operator.passes) <= 2 + 9
    assert cluster.writes == [Write("patch_status", "LlamaServer", "chat")]
    assert event_reasons(cluster, "Warning") == ["ApplyRejected"]


@pytest.mark.parametrize("template", VARYING)
async def test_a_rejection_whose_message_varies_is_one_start_blocker(
    cluster: FakeCluster, operator: Operator, template: str
) -> None:
    apply_server(cluster)
    reject_deployments(cluster, map(template.format, itertools.count(1)))

    await operator.run_for(1)
    created = list(cluster.writes)
    await operator.run_for(600)

    assert len(operator.passes) <= 2 + 9
    assert created.count(Write("apply", "Role", "chat-balancer")) == 2
    assert created[-1] == Write("patch_status", "LlamaServer", "chat")
    assert cluster.writes == created


async def test_a_rejection_in_other_words_each_time_is_no_hot_loop(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    reject_deployments(cluster, (f"denied: {'a' * length}" for length in itertools.count(1)))

    await operator.run_for(600)

    assert len(operator.passes) <= 2 + 9
    assert event_reasons(cluster, "Warning") == ["ApplyRejected"]


async def test_a_new_cause_of_a_rejection_is_reported_and_published(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    cluster.fail(ApiError(403, "Forbidden", "image a:1 is denied"), "apply", DEPLOYMENTS)
    await operator.run_for(1)

    # The same words, for a new spec.
    cluster.fail(ApiError(403, "Forbidden", "image a:2 is denied"), "apply", DEPLOYMENTS)
    update_spec(cluster, image="a:2")
    await operator.run_for(1)

    assert condition(cluster, "Ready")["message"] == "image a:2 is denied"
    blocker = published_blocker(cluster)
    assert blocker is not None
    assert blocker.message == "image a:2 is denied"
