"""Drift is reported; drift that others cause repeatedly is a field conflict, with a back-off."""

from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    edit_spec,
    event_messages,
    replica_count,
    roll_out,
    update_spec,
)
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, LLAMA_SERVERS, SERVICES
from slotkeeper.reconcile.write.conflicts import CONFLICT_AFTER, QUIET_SECONDS, RETRY

REPLICAS = "chat-replicas"


@pytest.fixture
async def deployed(cluster: FakeCluster, operator: Operator) -> Operator:
    """An operator with a server that is rolled out."""
    await deploy(cluster, operator)
    return operator


def set_replicas(cluster: FakeCluster, replicas: int = 7, manager: str = "hpa") -> None:
    """Scale the replicas' Deployment as another field manager."""

    def change(deployment: Any) -> None:
        deployment["spec"]["replicas"] = replicas
        entry = {
            "manager": manager,
            "time": "2026-11-01T12:00:00Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
        deployment["metadata"]["managedFields"] = [entry]

    cluster.edit(DEPLOYMENTS, "default", REPLICAS, change)


async def repeat(
    cluster: FakeCluster, operator: Operator, times: int, change: Callable[[FakeCluster], None]
) -> None:
    """Let others make a change, and the operator correct it, some times in a row."""
    for _ in range(times):
        change(cluster)
        operator.time.elapsed += 15
        await operator.reconcile()


async def test_one_event_names_the_manager_and_the_field_of_a_drift(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, 2, set_replicas)

    assert replica_count(cluster) == 1
    assert event_messages(cluster, "DriftCorrected") == [
        "Deployment chat-replicas: spec.replicas changed by hpa; corrected"
    ]
    assert event_messages(cluster, "ScaledDown") == []
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_a_removed_field_is_reported(cluster: FakeCluster, deployed: Operator) -> None:
    cluster.edit(SERVICES, "default", "chat", lambda found: found["spec"].pop("selector"))

    await deployed.reconcile()

    assert event_messages(cluster, "DriftCorrected") == [
        "Service chat: spec.selector changed or removed; corrected"
    ]


async def test_a_deleted_child_is_reported(cluster: FakeCluster, deployed: Operator) -> None:
    cluster.remove(SERVICES, "default", "chat")

    await deployed.reconcile()

    assert "chat" in cluster.by_name(SERVICES)
    assert event_messages(cluster, "DriftCorrected") == ["Service chat was deleted; created again"]


async def test_a_deletion_that_only_a_listing_shows_is_reported(
    cluster: FakeCluster, deployed: Operator
) -> None:
    cluster.remove(SERVICES, "default", "chat")
    deployed.relist()

    await deployed.reconcile()

    assert event_messages(cluster, "DriftCorrected") == ["Service chat was deleted; created again"]


async def test_a_removed_label_is_reported(cluster: FakeCluster, deployed: Operator) -> None:
    label = "slotkeeper.dev/server"
    cluster.edit(SERVICES, "default", "chat", lambda found: found["metadata"]["labels"].pop(label))

    await deployed.reconcile()

    assert event_messages(cluster, "DriftCorrected") == [
        "Service chat: metadata.labels[slotkeeper.dev/server] changed or removed; corrected"
    ]


async def test_the_operators_own_changes_are_no_drift(
    cluster: FakeCluster, deployed: Operator
) -> None:
    update_spec(cluster, replicas=3)
    await deployed.reconcile()
    update_spec(cluster, suspend=True)
    await deployed.reconcile()
    edit_spec(cluster, lambda spec: spec.pop("suspend"))
    await deployed.reconcile()

    assert replica_count(cluster) == 3
    assert event_messages(cluster, "DriftCorrected") == []


async def test_a_recreated_server_reports_no_drift_of_its_predecessor(
    cluster: FakeCluster, deployed: Operator
) -> None:
    cluster.remove(LLAMA_SERVERS, *KEY)
    for kind, namespace, name in list(cluster.objects):
        if kind != EVENTS:
            cluster.remove(kind, namespace, name)
    apply_server(cluster)

    await deployed.reconcile()

    assert REPLICAS in cluster.by_name(DEPLOYMENTS)
    assert event_messages(cluster, "DriftCorrected") == []


async def test_repeated_drift_of_the_same_field_is_a_field_conflict(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "FieldConflict")
    assert found["message"].startswith(
        "Deployment chat-replicas: hpa repeatedly changes spec.replicas"
    )
    assert "scale the LlamaServer instead of its Deployment" in found["message"]
    assert condition(cluster, "Ready")["status"] == "True"
    assert event_messages(cluster, "FieldConflict") == [found["message"]]


async def test_corrections_of_a_field_conflict_back_off_up_to_a_maximum(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)
    delays = []

    for _ in range(8):
        set_replicas(cluster)
        changed_at = deployed.time.elapsed
        await deployed.reconcile()
        assert replica_count(cluster) == 7
        while replica_count(cluster) == 7:
            await deployed.run_for(1)
        delays.append(deployed.time.elapsed - changed_at)

    assert delays == [10, 20, 40, 80, 160, *[RETRY.maximum] * 3]
    assert len(event_messages(cluster, "FieldConflict")) == 1
    assert len(event_messages(cluster, "DriftCorrected")) == 1


async def test_nothing_is_written_during_the_back_off(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)
    set_replicas(cluster)
    await deployed.reconcile()
    cluster.writes.clear()

    for _ in range(9):
        await deployed.run_for(1)
        await deployed.reconcile()

    assert cluster.writes == []


async def test_a_field_conflict_is_over_after_a_quiet_time(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)

    await deployed.run_for(int(QUIET_SECONDS) - 1)
    before = condition(cluster, "Degraded")["status"]
    await deployed.run_for(1)

    assert (before, condition(cluster, "Degraded")["status"]) == ("True", "False")
    assert not deployed.reconciler.is_due(KEY)
    set_replicas(cluster)
    await deployed.reconcile()
    assert replica_count(cluster) == 1


async def test_a_new_spec_is_applied_during_the_back_off(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)
    set_replicas(cluster)
    update_spec(cluster, replicas=2)

    await deployed.reconcile()

    assert replica_count(cluster) == 2


async def test_other_fields_and_children_are_corrected_during_the_back_off(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)
    set_replicas(cluster)
    cluster.remove(SERVICES, "default", "chat")
    await deployed.reconcile()
    assert "chat" in cluster.by_name(SERVICES)
    assert replica_count(cluster) == 7

    cluster.remove(DEPLOYMENTS, "default", REPLICAS)
    await deployed.reconcile()

    assert replica_count(cluster) == 1


async def test_a_child_that_is_deleted_repeatedly_is_created_again_with_a_back_off(
    cluster: FakeCluster, deployed: Operator
) -> None:
    def delete_service(cluster: FakeCluster) -> None:
        cluster.remove(SERVICES, "default", "chat")

    await repeat(cluster, deployed, CONFLICT_AFTER, delete_service)
    delete_service(cluster)
    await deployed.reconcile()

    assert "chat" not in cluster.by_name(SERVICES)
    assert "Service chat is deleted repeatedly" in condition(cluster, "Degraded")["message"]
    await deployed.run_for(10)
    assert "chat" in cluster.by_name(SERVICES)


async def test_a_webhook_that_changes_an_applied_field_is_a_field_conflict_at_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    def replace_image(found: Any) -> None:
        if (found["kind"], found["metadata"]["name"]) == ("Deployment", REPLICAS):
            found["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/llama"

    cluster.webhook = replace_image
    apply_server(cluster)
    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert found["reason"] == "FieldConflict"
    assert "comes back changed from each write, as by a mutating webhook" in found["message"]
    assert "containers[llama-server].image" in found["message"]
    cluster.writes.clear()
    await operator.run_for(9)
    assert cluster.writes == []


async def test_a_webhook_that_adds_fields_is_no_field_conflict(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.webhook = lambda found: found["metadata"]["labels"].update(team="ml")
    apply_server(cluster)
    await operator.reconcile()
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []
    assert condition(cluster, "Degraded")["reason"] != "FieldConflict"


async def test_corrections_of_a_field_conflict_are_not_reported_as_scaling(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, autoscaling={"minReplicas": 1, "maxReplicas": 4})
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(3)

    await repeat(cluster, operator, CONFLICT_AFTER + 2, lambda fake: set_replicas(fake, 9))

    assert len(event_messages(cluster, "ScaledDown")) <= 1


async def test_a_field_conflict_of_a_suspended_server_is_reported(
    cluster: FakeCluster, deployed: Operator
) -> None:
    update_spec(cluster, suspend=True)
    await deployed.reconcile()

    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)

    assert condition(cluster, "Degraded")["reason"] == "FieldConflict"
    assert condition(cluster, "Ready")["reason"] == "Suspended"


async def test_corrections_and_field_conflicts_are_counted(
    cluster: FakeCluster, deployed: Operator
) -> None:
    await repeat(cluster, deployed, CONFLICT_AFTER, set_replicas)

    corrections = "slotkeeper_operator_drift_corrections_total"
    sample = deployed.registry.get_sample_value
    assert sample(corrections, {"kind": "Deployment"}) == CONFLICT_AFTER
    assert sample("slotkeeper_operator_field_conflicts") == 1


async def test_demand_scales_a_server_during_a_field_conflict_on_its_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, slots=4, autoscaling={"minReplicas": 1, "maxReplicas": 4})
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await operator.run_for(3)
    await repeat(cluster, operator, CONFLICT_AFTER + 1, lambda fake: set_replicas(fake, 0))
    set_replicas(cluster, 0)
    await operator.run_for(1)
    in_conflict = condition(cluster, "Degraded")["reason"], replica_count(cluster)
    corrected = event_messages(cluster, "DriftCorrected")
    cluster.writes.clear()

    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=4, queued=1)
    await operator.run_for(1)
    scaled = replica_count(cluster)
    await operator.run_for(60)
    # The conflict continues.
    set_replicas(cluster, 0)
    changed_at = operator.time.elapsed
    while replica_count(cluster) == 0:
        await operator.run_for(1)

    assert in_conflict == ("FieldConflict", 0)
    assert (scaled, replica_count(cluster)) == (2, 2)
    assert operator.time.elapsed - changed_at <= RETRY.maximum
    # The scale-up and the correction.
    assert cluster.writes.count(Write("apply", "Deployment", REPLICAS)) == 2
    [message] = event_messages(cluster, "ScaledUp")
    assert message.endswith(": 0 -> 2")
    assert event_messages(cluster, "DriftCorrected") == corrected
    assert condition(cluster, "Degraded")["reason"] == "FieldConflict"
