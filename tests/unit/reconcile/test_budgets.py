"""Two servers that share a budget of one GPU, through the operator: one goes for the other."""

from typing import Any

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
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS, PODS
from slotkeeper.kube.objects import Key
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
