"""What others do to children is put right, said, and slowed down where they go on with it."""

from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, change_spec, condition, numbers, roll_out, stored
from slotkeeper.kube.kinds import DEPLOYMENTS, EVENTS, LLAMA_SERVERS, SERVICES
from slotkeeper.reconcile.write.conflicts import CONFLICT_AFTER, QUIET_SECONDS, RETRY

REPLICAS = "chat-replicas"


@pytest.fixture
async def serving(cluster: FakeCluster, operator: Operator) -> Operator:
    stored(cluster)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    cluster.writes.clear()
    return operator


def sets_replicas(cluster: FakeCluster, replicas: int = 7, manager: str = "hpa") -> None:
    def change(deployment: Any) -> None:
        deployment["spec"]["replicas"] = replicas
        entry = {
            "manager": manager,
            "time": "2026-11-01T12:00:00Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
        deployment["metadata"]["managedFields"] = [entry]

    cluster.edit(DEPLOYMENTS, "default", REPLICAS, change)


def replicas(cluster: FakeCluster) -> int:
    found: int = cluster.named(DEPLOYMENTS)[REPLICAS]["spec"]["replicas"]
    return found


def events(cluster: FakeCluster, reason: str) -> list[str]:
    found = cluster.named(EVENTS).values()
    return [event["message"] for event in found if event["reason"] == reason]


async def rounds(
    cluster: FakeCluster, operator: Operator, times: int, change: Callable[[FakeCluster], None]
) -> None:
    for _ in range(times):
        change(cluster)
        operator.time.passed += 15
        await operator.reconcile()


async def test_who_changed_which_field_is_said_once(
    cluster: FakeCluster, serving: Operator
) -> None:
    await rounds(cluster, serving, 2, sets_replicas)

    assert replicas(cluster) == 1
    assert events(cluster, "DriftCorrected") == [
        "Deployment chat-replicas: spec.replicas changed by hpa; corrected"
    ]
    assert events(cluster, "ScaledDown") == []
    assert condition(cluster, "Degraded")["status"] == "False"


async def test_a_field_that_somebody_took_away_is_said(
    cluster: FakeCluster, serving: Operator
) -> None:
    cluster.edit(SERVICES, "default", "chat", lambda found: found["spec"].pop("selector"))

    await serving.reconcile()

    assert events(cluster, "DriftCorrected") == [
        "Service chat: spec.selector changed or removed; corrected"
    ]


async def test_a_child_that_somebody_deleted_is_said(
    cluster: FakeCluster, serving: Operator
) -> None:
    cluster.remove(SERVICES, "default", "chat")

    await serving.reconcile()

    assert "chat" in cluster.named(SERVICES)
    assert events(cluster, "DriftCorrected") == ["Service chat was deleted; created again"]


async def test_a_deletion_that_no_watch_has_shown_is_said(
    cluster: FakeCluster, serving: Operator
) -> None:
    cluster.remove(SERVICES, "default", "chat")
    serving.lists_anew()

    await serving.reconcile()

    assert events(cluster, "DriftCorrected") == ["Service chat was deleted; created again"]


async def test_a_label_that_somebody_took_away_is_said(
    cluster: FakeCluster, serving: Operator
) -> None:
    label = "slotkeeper.dev/server"
    cluster.edit(SERVICES, "default", "chat", lambda found: found["metadata"]["labels"].pop(label))

    await serving.reconcile()

    assert events(cluster, "DriftCorrected") == [
        "Service chat: metadata.labels[slotkeeper.dev/server] changed or removed; corrected"
    ]


async def test_what_the_operator_does_itself_is_no_drift(
    cluster: FakeCluster, serving: Operator
) -> None:
    change_spec(cluster, lambda spec: spec.update(replicas=3))
    await serving.reconcile()
    change_spec(cluster, lambda spec: spec.update(suspend=True))
    await serving.reconcile()
    change_spec(cluster, lambda spec: spec.pop("suspend"))
    await serving.reconcile()

    assert replicas(cluster) == 3
    assert events(cluster, "DriftCorrected") == []


async def test_a_server_that_takes_the_place_of_a_deleted_one_has_lost_nothing(
    cluster: FakeCluster, serving: Operator
) -> None:
    cluster.remove(LLAMA_SERVERS, *KEY)
    for kind, namespace, name in list(cluster.objects):
        if kind != EVENTS:
            cluster.remove(kind, namespace, name)
    stored(cluster)

    await serving.reconcile()

    assert REPLICAS in cluster.named(DEPLOYMENTS)
    assert events(cluster, "DriftCorrected") == []


async def test_the_same_again_and_again_is_a_fight(cluster: FakeCluster, serving: Operator) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)

    found = condition(cluster, "Degraded")
    assert (found["status"], found["reason"]) == ("True", "FieldConflict")
    assert found["message"].startswith(
        "Deployment chat-replicas: hpa repeatedly changes spec.replicas"
    )
    assert "HorizontalPodAutoscaler" in found["message"]
    assert condition(cluster, "Ready")["status"] == "True"
    assert events(cluster, "FieldConflict") == [found["message"]]


async def test_a_fight_takes_ever_longer_pauses_and_never_too_long_ones(
    cluster: FakeCluster, serving: Operator
) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)
    pauses = []

    for _ in range(8):
        sets_replicas(cluster)
        began = serving.time.passed
        await serving.reconcile()
        assert replicas(cluster) == 7
        while replicas(cluster) == 7:
            await serving.pass_time(1)
        pauses.append(serving.time.passed - began)

    assert pauses == [10, 20, 40, 80, 160, *[RETRY.maximum] * 3]
    assert len(events(cluster, "FieldConflict")) == 1
    assert len(events(cluster, "DriftCorrected")) == 1


async def test_nothing_is_written_while_a_fight_pauses(
    cluster: FakeCluster, serving: Operator
) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)
    sets_replicas(cluster)
    await serving.reconcile()
    cluster.writes.clear()

    for _ in range(9):
        await serving.pass_time(1)
        await serving.reconcile()

    assert cluster.writes == []


async def test_a_fight_that_has_been_quiet_is_over(cluster: FakeCluster, serving: Operator) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)

    await serving.pass_time(int(QUIET_SECONDS) - 1)
    before = condition(cluster, "Degraded")["status"]
    await serving.pass_time(1)

    assert (before, condition(cluster, "Degraded")["status"]) == ("True", "False")
    assert serving.reconciler.due() == []
    sets_replicas(cluster)
    await serving.reconcile()
    assert replicas(cluster) == 1


async def test_a_new_spec_does_not_wait_for_a_fight(
    cluster: FakeCluster, serving: Operator
) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)
    sets_replicas(cluster)
    change_spec(cluster, lambda spec: spec.update(replicas=2))

    await serving.reconcile()

    assert replicas(cluster) == 2


async def test_other_fields_and_other_children_do_not_wait_for_a_fight(
    cluster: FakeCluster, serving: Operator
) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)
    sets_replicas(cluster)
    cluster.remove(SERVICES, "default", "chat")
    await serving.reconcile()
    assert "chat" in cluster.named(SERVICES)
    assert replicas(cluster) == 7

    cluster.remove(DEPLOYMENTS, "default", REPLICAS)
    await serving.reconcile()

    assert replicas(cluster) == 1


async def test_a_child_that_is_deleted_again_and_again_comes_back_more_slowly(
    cluster: FakeCluster, serving: Operator
) -> None:
    def deletes(cluster: FakeCluster) -> None:
        cluster.remove(SERVICES, "default", "chat")

    await rounds(cluster, serving, CONFLICT_AFTER, deletes)
    deletes(cluster)
    await serving.reconcile()

    assert "chat" not in cluster.named(SERVICES)
    assert "Service chat is deleted repeatedly" in condition(cluster, "Degraded")["message"]
    await serving.pass_time(10)
    assert "chat" in cluster.named(SERVICES)


async def test_a_webhook_that_changes_what_is_applied_is_a_fight_at_once(
    cluster: FakeCluster, operator: Operator
) -> None:
    def mirrors(found: Any) -> None:
        if (found["kind"], found["metadata"]["name"]) == ("Deployment", REPLICAS):
            found["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/llama"

    cluster.webhook = mirrors
    stored(cluster)
    await operator.reconcile()

    found = condition(cluster, "Degraded")
    assert found["reason"] == "FieldConflict"
    assert "comes back changed from each write, as by a mutating webhook" in found["message"]
    assert "containers[llama-server].image" in found["message"]
    cluster.writes.clear()
    await operator.pass_time(9)
    assert cluster.writes == []


async def test_a_webhook_that_adds_fields_of_its_own_is_no_fight(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.webhook = lambda found: found["metadata"]["labels"].update(team="ml")
    stored(cluster)
    await operator.reconcile()
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []
    assert condition(cluster, "Degraded")["reason"] != "FieldConflict"


async def test_a_fight_over_replicas_is_no_scaling(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster, autoscaling={"minReplicas": 1, "maxReplicas": 4})
    await operator.reconcile()
    roll_out(cluster)
    operator.balancers.says["10.0.0.1"] = numbers()
    await operator.pass_time(3)

    await rounds(cluster, operator, CONFLICT_AFTER + 2, lambda fake: sets_replicas(fake, 9))

    assert len(events(cluster, "ScaledDown")) <= 1


async def test_a_fight_over_a_suspended_server_is_said(
    cluster: FakeCluster, serving: Operator
) -> None:
    change_spec(cluster, lambda spec: spec.update(suspend=True))
    await serving.reconcile()

    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)

    assert condition(cluster, "Degraded")["reason"] == "FieldConflict"
    assert condition(cluster, "Ready")["reason"] == "Suspended"


async def test_drift_and_fights_are_counted(cluster: FakeCluster, serving: Operator) -> None:
    await rounds(cluster, serving, CONFLICT_AFTER, sets_replicas)

    put_right = "slotkeeper_operator_drift_corrections_total"
    sample = serving.registry.get_sample_value
    assert sample(put_right, {"kind": "Deployment"}) == CONFLICT_AFTER
    assert sample("slotkeeper_operator_field_conflicts") == 1
