"""NetworkPolicy of replicas, and PodDisruptionBudgets."""

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, network_and_pdb, replicas
from slotkeeper.desired.download_settings import DownloadSettings
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


def test_only_the_operator_reads_the_progress_of_downloads() -> None:
    downloads = DownloadSettings(operator_namespace="system")
    _, rule = network_and_pdb.network_policy(server(), downloads)["spec"]["ingress"]
    [init] = replicas.deployment(server(), 1, IMAGES)["spec"]["template"]["spec"]["initContainers"]

    assert rule == {
        "from": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}},
                "podSelector": {
                    "matchLabels": {
                        "app.kubernetes.io/part-of": "slotkeeper",
                        "app.kubernetes.io/component": "operator",
                    }
                },
            }
        ],
        "ports": [{"protocol": "TCP", "port": 9091}],
    }
    assert init["ports"] == [{"name": "progress", "protocol": "TCP", "containerPort": 9091}]


def test_the_policy_is_for_replicas_and_the_prefetch_of_their_server_only() -> None:
    selector = network_and_pdb.network_policy(server())["spec"]["podSelector"]

    assert selector == {
        "matchLabels": {"slotkeeper.dev/server": "chat"},
        "matchExpressions": [
            {
                "key": "slotkeeper.dev/component",
                "operator": "In",
                "values": ["replica", "prefetch"],
            }
        ],
    }


def test_without_a_download_no_port_is_opened() -> None:
    in_image = server(model={"url": "image:///model.gguf"})
    downloads = DownloadSettings(operator_namespace="system")

    assert len(network_and_pdb.network_policy(in_image, downloads)["spec"]["ingress"]) == 1


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
