"""The budget in a gateway's spec limits the servers that it selects, and its status shows it."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from gateway_harness import GATEWAY, apply_gateway, edit_gateway, gateway_status, update_gateway
from operator_harness import (
    Operator,
    apply_server,
    demand_report,
    pod_of,
    put_replica_set,
    replica_count,
    server_status,
)
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_GATEWAYS
from slotkeeper.kube.objects import Key

HOSTS = {"a": "10.0.1.1", "b": "10.0.1.2", "c": "10.0.1.3"}
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 300}
ONE_MODEL = {"maxLoadedModels": 1}


async def deploy(cluster: FakeCluster, operator: Operator, name: str, **fields: Any) -> None:
    """Deploy a server at zero, whose balancer reports this demand."""
    apply_server(cluster, name, autoscaling=AUTOSCALING)
    await operator.reconcile(Key("default", name))
    for deployment in cluster.by_name(DEPLOYMENTS).values():
        put_replica_set(cluster, deployment)
    balancer = pod_of(cluster.by_name(DEPLOYMENTS)[f"{name}-balancer"])
    balancer["status"]["podIP"] = HOSTS[name]
    cluster.put(balancer)
    operator.balancers.reports[HOSTS[name]] = demand_report(**fields)


async def run(operator: Operator, seconds: int = 3) -> None:
    for _ in range(seconds):
        await operator.run_for(1)
        await operator.reconcile_gateways()


def replicas(cluster: FakeCluster) -> int:
    """Of servers a and b."""
    return replica_count(cluster, "a") + replica_count(cluster, "b")


async def test_the_selected_servers_share_the_budget_and_the_status_shows_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster, budget=ONE_MODEL)
    await operator.reconcile_gateways()
    for name in ("a", "b"):
        await deploy(cluster, operator, name)
    await run(operator)
    for name in ("a", "b"):
        operator.balancers.reports[HOSTS[name]] = demand_report(queued=1)
    await run(operator)

    assert replicas(cluster) == 1
    loaded, waiting = ("a", "b") if replica_count(cluster, "a") else ("b", "a")
    assert server_status(cluster, waiting)["scaling"]["reason"] == "GatewayBudget"
    budget = gateway_status(cluster)["budget"]
    assert (budget["used"], budget["limit"]) == ("1 model", "1 model")
    [event] = budget["history"]
    assert (event["model"], event["action"]) == (loaded, "Loaded")
    assert event["message"].startswith("0 -> 1: ")


@pytest.mark.parametrize("remove", ["budget", "gateway", "selection"])
async def test_without_the_budget_each_server_scales_by_itself(
    cluster: FakeCluster, operator: Operator, remove: str
) -> None:
    apply_gateway(cluster, budget=ONE_MODEL)
    await operator.reconcile_gateways()
    for name in ("a", "b"):
        await deploy(cluster, operator, name, queued=1)
    await run(operator)
    assert replicas(cluster) == 1
    if remove == "budget":
        edit_gateway(cluster, lambda raw: raw["spec"].pop("budget"))
    elif remove == "gateway":
        cluster.remove(LLAMA_GATEWAYS, *GATEWAY)
    else:
        update_gateway(cluster, serverSelector={"matchLabels": {"team": "none"}})
    await run(operator)

    assert replicas(cluster) == 2
    if remove == "budget":
        assert "budget" not in gateway_status(cluster)


async def test_an_invalid_spec_keeps_the_last_budget(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster, budget=ONE_MODEL)
    await operator.reconcile_gateways()
    for name in ("a", "b"):
        await deploy(cluster, operator, name, queued=1)
    await run(operator)
    update_gateway(cluster, budget={"gpus": -1})
    await run(operator)

    assert replicas(cluster) == 1


async def test_a_new_server_is_limited_before_its_first_pass(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster, budget=ONE_MODEL)
    await operator.reconcile_gateways()
    apply_server(cluster, "c", autoscaling=AUTOSCALING)
    await operator.deliver_events()

    assert operator.reconciler.budgets.grant(Key("default", "c")) is not None


async def test_at_the_start_of_the_operator_budgets_apply_before_the_first_pass(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_gateway(cluster, budget=ONE_MODEL)
    await operator.reconcile_gateways()
    for name in ("a", "b"):
        await deploy(cluster, operator, name, queued=1)
    await run(operator)
    restarted = Operator(cluster, operator.time, operator.balancers)
    await restarted.runtime.list_servers()
    await restarted.runtime.gateways.list_gateways(())

    for name in ("a", "b"):
        assert restarted.reconciler.budgets.grant(Key("default", name)) is not None
    await run(restarted)
    assert replicas(cluster) == 1


async def test_memory_is_a_quantity(cluster: FakeCluster, operator: Operator) -> None:
    apply_gateway(cluster, budget={"gpus": 4, "memory": "64Gi", "maximumWaitSeconds": 600})
    await operator.reconcile_gateways()
    await run(operator)

    budget = operator.reconciler.budgets.of(GATEWAY)
    assert budget is not None
    assert (budget.budget.maximum_wait_seconds, budget.budget.minimum_residency_seconds) == (
        600,
        10,
    )
    assert gateway_status(cluster)["budget"]["limit"] == "4 GPUs, 64.0 GiB"
