"""One server, from what is to what should be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    KEY,
    Operator,
    change_spec,
    condition,
    numbers,
    roll_out,
    server_status,
    stored,
)
from slotkeeper.api.conditions import ConditionType
from slotkeeper.kube.cluster import ApiError, Conflict, Kind, Manifest, Unreachable
from slotkeeper.kube.kinds import (
    CHILDREN,
    DEPLOYMENTS,
    EVENTS,
    LLAMA_SERVERS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from slotkeeper.reconcile.workqueue import RetryError


async def settled(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """A server whose replicas and balancer run, and of which all is said."""
    stored(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    cluster.writes.clear()


def replicas(cluster: FakeCluster) -> Any:
    return cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"]["replicas"]


def events(cluster: FakeCluster) -> list[tuple[str, str]]:
    return [(event["reason"], event["message"]) for event in cluster.named(EVENTS).values()]


async def test_a_new_server_gets_its_children_and_a_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)

    await operator.reconcile()

    assert set(cluster.named(DEPLOYMENTS)) == {"chat-replicas", "chat-balancer"}
    assert set(cluster.named(SERVICES)) == {"chat", "chat-replicas"}
    kinds = {found["type"]: found["status"] for found in server_status(cluster)["conditions"]}
    assert kinds == dict.fromkeys(ConditionType, "False")


async def test_a_second_reconcile_writes_nothing(cluster: FakeCluster, operator: Operator) -> None:
    stored(cluster)
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []


async def test_an_operator_that_starts_anew_writes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.balancers.says["10.0.0.1"] = numbers(busy=1)
    await settled(cluster, operator, autoscaling={"maxReplicas": 3})
    await operator.pass_time(2)
    cluster.writes.clear()

    again = Operator(cluster, balancers=operator.balancers)
    await again.reconcile()
    await again.pass_time(3)

    assert cluster.writes == []


async def test_at_rest_time_costs_neither_reads_nor_writes(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.balancers.says["10.0.0.1"] = numbers()
    await settled(cluster, operator, autoscaling={"maxReplicas": 3})
    await operator.pass_time(5)
    cluster.writes.clear()
    cluster.reads = 0

    await operator.pass_time(100)

    assert (cluster.reads, cluster.writes) == (0, [])
    assert operator.balancers.polls >= 100


async def test_all_that_is_ready_makes_a_server_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)

    ready = condition(cluster, "Ready")

    assert ready["status"] == "True"
    assert ready["message"] == "serving at http://chat.default.svc:80"
    assert server_status(cluster)["readyReplicas"] == 1
    assert ("Ready", ready["message"]) in events(cluster)


async def test_numbers_are_shown_without_reading_the_cluster_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, slots=4)
    operator.balancers.says["10.0.0.1"] = numbers(busy=3, queued=2)
    cluster.reads = 0

    await operator.pass_time(1)

    assert server_status(cluster)["slots"] == {"busy": 3, "total": 4}
    assert server_status(cluster)["queued"] == 2
    assert cluster.reads == 0
    assert cluster.writes == [Write("patch_status", "LlamaServer", "chat")]


async def test_demand_adds_a_replica_at_once_with_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=1, oldest=3.2)

    await operator.pass_time(3)

    assert replicas(cluster) == 2
    scaled = [message for reason, message in events(cluster) if reason == "ScaledUp"]
    assert scaled == ["busy 4/4, queued 1, oldest 3.2 s: 1 -> 2"]
    assert server_status(cluster)["scaling"]["desiredReplicas"] == 2


async def test_growing_makes_a_server_no_less_ready(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    before = condition(cluster, "Ready")
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=1)

    await operator.pass_time(3)
    await operator.reconcile()

    assert condition(cluster, "Ready") == before


async def test_quiet_takes_a_replica_away(cluster: FakeCluster, operator: Operator) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    await settled(cluster, operator, slots=4, autoscaling={"maxReplicas": 3, "behavior": behavior})
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=1)
    await operator.pass_time(2)
    roll_out(cluster)
    operator.balancers.says["10.0.0.1"] = numbers(total=8)
    await operator.reconcile()

    await operator.pass_time(55)
    still_there = replicas(cluster)
    await operator.pass_time(10)

    assert (still_there, replicas(cluster)) == (2, 1)
    assert "ScaledDown" in dict(events(cluster))


async def test_a_balancer_that_cannot_be_read_takes_no_replica_away(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})
    cluster.edit(
        DEPLOYMENTS, "default", "chat-replicas", lambda found: found["spec"].update(replicas=2)
    )
    await operator.reconcile()

    await operator.pass_time(200)

    assert replicas(cluster) == 2
    assert server_status(cluster)["scaling"]["reason"] == "MetricsUnavailable"


async def test_a_raised_minimum_acts_at_once(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator, autoscaling={"minReplicas": 1, "maxReplicas": 3})

    change_spec(cluster, lambda spec: spec["autoscaling"].update(minReplicas=2))
    await operator.reconcile()

    assert replicas(cluster) == 2


async def test_a_deleted_deployment_comes_back_as_large_as_it_was(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator, slots=4, autoscaling={"maxReplicas": 3})
    operator.balancers.says["10.0.0.1"] = numbers(busy=4, queued=5)
    await operator.pass_time(2)
    operator.balancers.says.clear()
    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")

    await Operator(cluster).reconcile()

    assert replicas(cluster) == 3


DRIFTS: list[Any] = [
    pytest.param(
        DEPLOYMENTS, "chat-replicas", lambda found: found["spec"].update(replicas=7), id="replicas"
    ),
    pytest.param(
        SERVICES, "chat", lambda found: found["spec"]["selector"].clear(), id="selector emptied"
    ),
    pytest.param(
        SERVICE_ACCOUNTS,
        "chat-balancer",
        lambda found: found["metadata"]["labels"].clear(),
        id="label taken off",
    ),
]


@pytest.mark.parametrize(("kind", "name", "change"), DRIFTS)
async def test_drift_is_put_right(
    cluster: FakeCluster, operator: Operator, kind: Kind, name: str, change: Callable[[Any], None]
) -> None:
    await settled(cluster, operator)
    before = copy.deepcopy(cluster.named(kind)[name])
    cluster.edit(kind, "default", name, change)

    await operator.reconcile()

    after = cluster.named(kind)[name]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after.get("spec") == before.get("spec")


async def test_what_others_add_is_theirs(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator)

    def annotate(found: Any) -> None:
        found["metadata"]["annotations"]["example.com/note"] = "mine"
        found["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})

    cluster.edit(DEPLOYMENTS, "default", "chat-balancer", annotate)

    await operator.reconcile()

    assert cluster.writes == []


async def test_a_child_that_nobody_wants_any_more_goes(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    outdated = copy.deepcopy(cluster.named(SERVICES)["chat"])
    outdated["metadata"]["name"] = "chat-of-an-older-release"
    cluster.put(outdated)
    strange = copy.deepcopy(outdated)
    strange["metadata"] |= {"name": "somebody-elses", "ownerReferences": []}
    cluster.put(strange)

    await operator.reconcile()

    assert set(cluster.named(SERVICES)) == {"chat", "chat-replicas", "somebody-elses"}


USERS: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {"selector": {"app": "precious"}},
}


async def test_what_is_not_the_servers_is_never_taken(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(USERS)
    stored(cluster)

    with pytest.raises(RetryError):
        await operator.reconcile()

    assert cluster.named(SERVICES)["chat"]["spec"] == USERS["spec"]
    assert condition(cluster, "Ready")["reason"] == "NameConflict"
    assert "Service chat" in condition(cluster, "Ready")["message"]


async def test_the_children_of_a_deleted_server_of_the_same_name_are_waited_for(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    stored(cluster)

    with pytest.raises(RetryError):
        await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "WaitingForDeletion"
    assert "WaitingForDeletion" not in dict(events(cluster))


async def test_an_invalid_spec_is_a_condition_and_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    change_spec(cluster, lambda spec: spec.update(slots=0))

    await operator.reconcile()
    await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.slots" in ready["message"]
    assert server_status(cluster)["observedGeneration"] == 2
    assert [reason for reason, _ in events(cluster)].count("InvalidSpec") == 1
    assert "chat-replicas" in cluster.named(DEPLOYMENTS)


async def test_a_spec_that_is_good_again_heals(cluster: FakeCluster, operator: Operator) -> None:
    await settled(cluster, operator)
    change_spec(cluster, lambda spec: spec.update(slots=0))
    await operator.reconcile()

    change_spec(cluster, lambda spec: spec.update(slots=4))
    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "True"


async def test_a_time_moves_only_when_its_status_does(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    before = condition(cluster, "Ready")["lastTransitionTime"]
    operator.time.passed += 100
    change_spec(cluster, lambda spec: spec["model"].update(url="https://example.com/other.gguf"))

    await operator.reconcile()

    after = {found["type"]: found for found in server_status(cluster)["conditions"]}
    assert after["Ready"]["status"] == "False"
    assert after["Ready"]["lastTransitionTime"] > before
    assert after["BalancerReady"]["lastTransitionTime"] == before
    assert {found["observedGeneration"] for found in after.values()} == {2}


async def test_a_child_that_the_api_server_refuses_is_named(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    refusal = ApiError(403, "Forbidden", "exceeded quota: pods")
    cluster.refuse = lambda verb, item: refusal if (verb, item["kind"]) == DEPLOYMENT else None

    with pytest.raises(ApiError):
        await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["reason"], ready["message"]) == ("ApplyRejected", "exceeded quota: pods")


DEPLOYMENT = ("apply", "Deployment")


async def test_an_api_server_out_of_reach_changes_no_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    cluster.refuse = lambda verb, _: Unreachable(0, "", "cut") if verb == "apply" else None

    with pytest.raises(Unreachable):
        await operator.reconcile()

    assert server_status(cluster) == {}


async def test_a_deleted_server_is_left_to_the_garbage_collector(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    cluster.edit(
        LLAMA_SERVERS,
        "default",
        "chat",
        lambda raw: raw["metadata"].update(deletionTimestamp="2026-11-01T12:00:00Z"),
    )

    await operator.reconcile()
    await operator.pass_time(2)

    assert cluster.writes == []
    assert operator.states.servers() == []
    assert operator.balancers.polls == 0


async def test_what_was_only_written_here_is_no_news(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)

    assert await operator.deliver() == set()


async def test_what_the_operator_wrote_is_not_written_again_before_a_watch_shows_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    stored(cluster)
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconciler.reconcile(KEY)

    assert cluster.writes == []


async def test_a_child_that_lost_its_label_unseen_is_found_and_put_right(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    uid = cluster.named(SERVICES)["chat"]["metadata"]["uid"]
    cluster.edit(
        SERVICES, "default", "chat", lambda found: found["metadata"].update(labels={}, note="kept")
    )

    await operator.reconcile()

    after = cluster.named(SERVICES)["chat"]["metadata"]
    assert (after["uid"], after["note"]) == (uid, "kept")
    assert after["labels"]["slotkeeper.dev/server"] == "chat"


async def test_what_somebody_put_in_a_childs_place_unseen_is_left_alone(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    users = copy.deepcopy(USERS) | {"apiVersion": "apps/v1", "kind": "Deployment"}
    users["metadata"]["name"] = "chat-replicas"
    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")
    cluster.put(users)
    change_spec(cluster, lambda spec: spec.update(slots=8))
    await operator.deliver(lambda event: event.object["kind"] != "Deployment")

    with pytest.raises(Conflict):
        await operator.reconciler.reconcile(KEY)
    operator.lists_anew()
    with pytest.raises(RetryError):
        await operator.reconcile()

    assert cluster.named(DEPLOYMENTS)["chat-replicas"]["spec"] == USERS["spec"]
    assert condition(cluster, "Ready")["reason"] == "NameConflict"


async def test_a_name_that_is_taken_is_asked_for_by_reading_once_it_is_known(
    cluster: FakeCluster, operator: Operator
) -> None:
    cluster.put(USERS)
    stored(cluster)
    with pytest.raises(RetryError):
        await operator.reconcile()
    tried = list[str]()
    cluster.refuse = lambda verb, item: tried.append(f"{verb} {item['kind']}")

    with pytest.raises(RetryError):
        await operator.reconcile()
    cluster.remove(SERVICES, "default", "chat")
    at_rest = [write for write in tried if not write.startswith("list")]
    await operator.reconcile()

    assert at_rest == []
    assert "chat" in cluster.named(SERVICES)
    assert condition(cluster, "Ready")["reason"] != "NameConflict"


async def test_the_children_of_a_server_that_went_unseen_are_not_made_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await settled(cluster, operator)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    for kind in CHILDREN:
        for name in list(cluster.named(kind)):
            cluster.remove(kind, "default", name)

    await operator.deliver(lambda event: event.object["kind"] != "LlamaServer")
    await operator.act()

    assert cluster.writes == []
    assert operator.states.servers() == []
