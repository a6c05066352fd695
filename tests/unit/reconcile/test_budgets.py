"""Two servers that share a budget of one GPU, through the operator: one goes for the other."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    demand_report,
    event_messages,
    pod_of,
    put_replica_set,
    replica_count,
    server_status,
    update_spec,
)
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, PODS, ROLES
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.observe.observed import Observed, observe
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.scaling.budget.observation import Budget
from slotkeeper.scaling.budget.resources import limits

GATEWAY = Key("default", "llm")
HOSTS = {"a": "10.0.1.1", "b": "10.0.1.2"}
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 300}


async def deploy_both(cluster: FakeCluster, operator: Operator) -> None:
    """Deploy servers a and b at zero, each with a balancer that reports no requests."""
    for name, host in HOSTS.items():
        apply_server(cluster, name, autoscaling=AUTOSCALING)
        await operator.reconcile(Key("default", name))
        for deployment in cluster.by_name(DEPLOYMENTS).values():
            put_replica_set(cluster, deployment)
        balancer = pod_of(cluster.by_name(DEPLOYMENTS)[f"{name}-balancer"])
        balancer["status"]["podIP"] = host
        cluster.put(balancer)
        report(operator, name)
    operator.reconciler.budgets.set(
        GATEWAY, Budget(limits(gpus=1)), [Key("default", name) for name in HOSTS]
    )
    await settle(operator, 2)


def report(operator: Operator, name: str, **fields: Any) -> None:
    operator.balancers.reports[HOSTS[name]] = demand_report(**fields)


async def settle(operator: Operator, seconds: int) -> None:
    for name in HOSTS:
        await operator.reconcile(Key("default", name))
    await operator.run_for(seconds)


def start(cluster: FakeCluster, name: str) -> Any:
    """The Deployment's pod becomes ready."""
    pod = pod_of(cluster.by_name(DEPLOYMENTS)[f"{name}-replicas"])
    cluster.put(pod)
    return pod


async def test_a_server_is_evicted_for_another_and_starts_only_when_the_pod_is_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (1, 0)
    pod = start(cluster, "a")
    report(operator, "a")
    await settle(operator, 15)

    report(operator, "b", queued=1, oldest=2.0)
    await settle(operator, 1)
    cluster.put(pod | {"metadata": pod["metadata"] | {"deletionTimestamp": "2026-11-01T12:00:00Z"}})
    await settle(operator, 5)
    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (0, 0)
    status = server_status(cluster, "a")["scaling"]
    assert status["reason"] in {"GatewayBudget", "DesiredWithinRange"}
    change = server_status(cluster, "a")["scaling"]["history"][0]
    assert (change["from"], change["to"], change["reason"]) == (1, 0, "GatewayBudget")
    assert "makes room for b" in change["message"]
    assert server_status(cluster, "b")["scaling"]["reason"] == "GatewayBudget"

    cluster.remove(PODS, "default", pod["metadata"]["name"])
    await settle(operator, 3)
    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (0, 1)
    budget = operator.reconciler.budgets.of(GATEWAY)
    assert budget is not None
    changes = [(each.server, each.before, each.after) for each in budget.history]
    assert changes == [("b", 0, 1), ("a", 1, 0), ("a", 0, 1)]
    assert any("makes room for b" in message for message in event_messages(cluster, "ScaledDown"))


async def test_a_busy_server_keeps_its_replica(cluster: FakeCluster, operator: Operator) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    report(operator, "a", busy=1)
    await settle(operator, 15)
    report(operator, "b", queued=1, oldest=2.0)
    await settle(operator, 10)

    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (1, 0)
    assert "all others are in use" in server_status(cluster, "b")["scaling"]["message"]


async def test_a_server_without_metrics_counts_as_in_use(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    report(operator, "a")
    await settle(operator, 15)
    del operator.balancers.reports[HOSTS["a"]]
    await settle(operator, 10)
    report(operator, "b", queued=1, oldest=2.0)
    await settle(operator, 10)

    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (1, 0)


async def test_without_its_budget_a_server_scales_by_itself_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    for name in HOSTS:
        report(operator, name, queued=1)
    await settle(operator, 3)
    limited = replica_count(cluster, "a") + replica_count(cluster, "b")
    operator.reconciler.budgets.remove(GATEWAY)
    await settle(operator, 3)

    assert limited == 1
    assert (replica_count(cluster, "a"), replica_count(cluster, "b")) == (1, 1)


async def test_a_deleted_server_occupies_its_resources_until_its_pods_are_deleted(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    pod = start(cluster, "a")
    await settle(operator, 2)
    cluster.remove(LLAMA_SERVERS, "default", "a")
    await operator.reconcile(Key("default", "a"))
    # As the gateway's next pass does.
    operator.reconciler.budgets.set(GATEWAY, Budget(limits(gpus=1)), [Key("default", "b")])
    report(operator, "b", queued=1, oldest=2.0)
    await operator.run_for(3)
    before = replica_count(cluster, "b")
    cluster.remove(PODS, "default", pod["metadata"]["name"])
    await operator.run_for(15)

    assert (before, replica_count(cluster, "b")) == (0, 1)


async def test_nothing_is_granted_after_a_restart_before_all_servers_are_observed(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    restarted = Operator(cluster, operator.time, operator.balancers)
    keys = [Key("default", name) for name in HOSTS]
    restarted.reconciler.budgets.set(GATEWAY, Budget(limits(gpus=1)), keys)
    report(operator, "b", queued=1, oldest=2.0)
    await restarted.deliver_events()
    restarted.reconciler.budgets.update()
    budget = restarted.reconciler.budgets.of(GATEWAY)

    assert budget is not None
    assert budget.last is None
    await settle(restarted, 3)
    assert replica_count(cluster, "b") == 0
    assert budget.last is not None


async def test_a_server_whose_spec_becomes_invalid_keeps_its_place(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    report(operator, "a")
    await settle(operator, 15)
    update_spec(cluster, Key("default", "a"), slots=0)
    await operator.reconcile(Key("default", "a"))
    report(operator, "b", queued=1, oldest=2.0)
    await operator.run_for(3)

    assert replica_count(cluster, "b") == 0
    message = server_status(cluster, "b")["scaling"]["message"]
    assert "reserved by minReplicas of other models" in message


async def test_a_server_that_never_fits_is_reported_and_blocked_until_the_budget_is_raised(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    assert start_blocker(cluster, "b") is None

    update_spec(cluster, Key("default", "b"), gpu={"count": 2})
    await settle(operator, 3)
    deployment = cluster.by_name(DEPLOYMENTS)["b-replicas"]
    counted = {"observedGeneration": deployment["metadata"]["generation"], "replicas": 0}
    cluster.put({**deployment, "status": counted})

    blocker = start_blocker(cluster, "b")
    assert blocker is not None
    assert (blocker.reason, blocker.permanent) == ("ExceedsBudget", True)
    assert blocker.message.startswith("2 GPUs needed, the budget is 1 GPU: raise the budget")
    for kind in ("Ready", "ReplicasReady"):
        assert server_condition(cluster, "b", kind)[:2] == ("False", "ExceedsBudget")
    assert server_condition(cluster, "b", "Degraded")[:2] == ("True", "ExceedsBudget")
    # Nothing in it changes with the requests.
    cluster.writes.clear()
    report(operator, "b", queued=1, oldest=2.0)
    await settle(operator, 5)
    report(operator, "b")
    await settle(operator, 15)
    assert start_blocker(cluster, "b") == blocker
    assert replica_count(cluster, "b") == 0
    # The other one is served.
    report(operator, "a", queued=1)
    await settle(operator, 2)
    assert replica_count(cluster, "a") == 1

    report(operator, "a")
    keys = [Key("default", name) for name in HOSTS]
    operator.reconciler.budgets.set(GATEWAY, Budget(limits(gpus=3)), keys)
    await settle(operator, 3)
    assert start_blocker(cluster, "b") is None
    assert server_condition(cluster, "b", "Ready")[:2] == ("True", "ScaledToZero")


async def test_what_other_servers_always_occupy_does_not_fit_either(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    update_spec(cluster, Key("default", "a"), autoscaling={"minReplicas": 1, "maxReplicas": 1})
    await settle(operator, 3)
    start(cluster, "a")
    assert start_blocker(cluster, "b") is None

    report(operator, "b", queued=1)
    await settle(operator, 3)

    blocker = start_blocker(cluster, "b")
    assert blocker is not None
    assert "1 GPU of it reserved by minReplicas of other models" in blocker.message


async def test_the_metrics_show_for_how_long_a_server_waits_for_room(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy_both(cluster, operator)
    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    report(operator, "a", busy=1)
    await settle(operator, 15)
    labels = {"namespace": "default", "name": "b"}
    name = "slotkeeper_autoscaler_budget_wait_seconds"
    assert operator.registry.get_sample_value(name, labels) is None

    report(operator, "b", queued=1)
    await settle(operator, 30)

    waited = operator.registry.get_sample_value(name, labels)
    assert waited is not None
    assert 25 <= waited <= 35


def start_blocker(cluster: FakeCluster, name: str) -> StartBlocker | None:
    metadata = cluster.by_name(ROLES)[f"{name}-balancer"]["metadata"]
    annotations = metadata.get("annotations") or {}
    return StartBlocker.from_annotation(annotations.get(START_BLOCKER_ANNOTATION))


def server_condition(cluster: FakeCluster, name: str, kind: str) -> tuple[str, str, str]:
    conditions = server_status(cluster, name)["conditions"]
    [found] = [each for each in conditions if each["type"] == kind]
    return found["status"], found["reason"], found["message"]


async def test_a_decision_decodes_only_what_has_changed(
    cluster: FakeCluster, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy_both(cluster, operator)
    read: list[str] = []
    budgets = operator.reconciler.budgets

    def observe_recorded(store: Store, server: LlamaServer, unlabelled: Any) -> Observed:
        read.append(server.name)
        return observe(store, server, unlabelled)

    monkeypatch.setattr("slotkeeper.reconcile.budgets.observe", observe_recorded)
    for _ in range(3):
        budgets.update()
    assert read == []

    report(operator, "a", queued=1)
    await settle(operator, 2)
    start(cluster, "a")
    await operator.run_for(2)
    assert set(read) == {"a"}
    known = budgets.of(GATEWAY)
    assert known is not None
    model = known.usage[Key("default", "a")].last
    assert model is not None
    assert (model.ready, model.starting) == (1, 0)
