"""NetworkPolicies and PodDisruptionBudgets."""

from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.resource import Resource
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.desired.metadata import Manifest, metadata
from slotkeeper.desired.model_container import is_in_image
from slotkeeper.desired.names import Component


def network_policy(server: LlamaServer, downloads: DownloadSettings = NO_SETTINGS) -> Manifest:
    """Return the NetworkPolicy that lets only the server's balancers connect to its replicas, and
    the operator to downloads, of replicas and of the prefetch Job.

    llama-server and the agent of prompt files check no API keys here, and requests that bypass the
    balancer occupy slots without being counted. Egress is not restricted: replicas download their
    model.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "podSelector": {
                "matchLabels": {names.SERVER_LABEL: server.name},
                "matchExpressions": [
                    {
                        "key": names.COMPONENT_LABEL,
                        "operator": "In",
                        "values": [Component.REPLICA.value, Component.PREFETCH.value],
                    }
                ],
            },
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "podSelector": {
                                "matchLabels": names.match_labels(server, Component.BALANCER)
                            }
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": port} for port in _ports(server)],
                },
                *_from_operator(server, downloads),
            ],
        },
    }


def replica_budget(server: LlamaServer) -> Manifest:
    """Return the PodDisruptionBudget for evicting one replica at a time."""
    return _budget(server, names.replicas(server), Component.REPLICA)


def balancer_budget(server: LlamaServer) -> Manifest:
    """Return the PodDisruptionBudget for evicting one balancer at a time."""
    return _budget(server, names.balancer(server), Component.BALANCER)


def worker_budget(server: LlamaServer) -> Manifest:
    """Return the PodDisruptionBudget for evicting one worker, and thus one replica, at a time."""
    return _budget(server, names.workers(server), Component.WORKER)


def gateway_budget(gateway: LlamaGateway) -> Manifest:
    """Return the PodDisruptionBudget for evicting one gateway pod at a time."""
    return _budget(gateway, names.gateway(gateway), Component.GATEWAY)


def gateway_policy(gateway: LlamaGateway) -> Manifest:
    """Return the NetworkPolicy that opens only the gateway's two ports, for all clients.

    Egress is not restricted: a gateway connects to the balancers of its servers.
    """
    ports = (names.GATEWAY_PORT, names.METRICS_PORT)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(gateway, names.gateway(gateway), Component.GATEWAY),
        "spec": {
            "podSelector": {"matchLabels": names.match_labels(gateway, Component.GATEWAY)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}],
        },
    }


def _ports(server: LlamaServer) -> list[int]:
    prompts = [names.PROMPT_FILES_PORT] if server.spec.prompt_cache else []
    return [names.LLAMA_SERVER_PORT, *prompts]


def _from_operator(server: LlamaServer, downloads: DownloadSettings) -> list[Manifest]:
    namespace = downloads.operator_namespace
    if namespace is None or is_in_image(server.spec):
        return []
    operator = {
        "namespaceSelector": {"matchLabels": {names.NAMESPACE_LABEL: namespace}},
        "podSelector": {"matchLabels": dict(names.OPERATOR_LABELS)},
    }
    return [{"from": [operator], "ports": [{"protocol": "TCP", "port": names.PROGRESS_PORT}]}]


def _budget(owner: Resource, name: str, component: Component) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, name, component),
        "spec": {
            # Not minAvailable: with a single replica a node could never be drained.
            "maxUnavailable": 1,
            # Pods that are not ready would otherwise block a drain forever.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.match_labels(owner, component)},
        },
    }
