"""NetworkPolicy of replicas, and PodDisruptionBudgets."""

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, network_and_pdb, replicas
from slotkeeper.desired.metadata import Manifest


def labels(deployment: Manifest) -> set[tuple[str, str]]:
    return set(deployment["spec"]["template"]["metadata"]["labels"].items())


def selected(selector: Manifest) -> set[tuple[str, str]]:
    return set(selector["matchLabels"].items())


def test_only_the_servers_own_balancers_reach_its_replicas() -> None:
    spec = network_and_pdb.network_policy(server())["spec"]

    [rule] = spec["ingress"]
    [source] = rule["from"]
    assert selected(spec["podSelector"]) <= labels(replicas.deployment(server(), 1, IMAGES))
    assert selected(source["podSelector"]) <= labels(balancer.deployment(server(), IMAGES))
    assert not selected(source["podSelector"]) <= labels(balancer.deployment(server("b"), IMAGES))
    assert "namespaceSelector" not in source
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert spec["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    ("budget", "deployment"),
    [
        (network_and_pdb.replica_budget(server()), replicas.deployment(server(), 1, IMAGES)),
        (network_and_pdb.balancer_budget(server()), balancer.deployment(server(), IMAGES)),
    ],
    ids=["replicas", "balancers"],
)
def test_a_drain_evicts_one_pod_at_a_time_and_is_never_blocked(
    budget: Manifest, deployment: Manifest
) -> None:
    assert selected(budget["spec"]["selector"]) <= labels(deployment)
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
