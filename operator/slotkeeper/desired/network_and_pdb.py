"""What guards a server's pods: from other pods, and from being evicted all at once."""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.metadata import Manifest, metadata
from slotkeeper.desired.names import Component


def network_policy(server: LlamaServer) -> Manifest:
    """Only the server's own balancers reach its replicas.

    llama-server knows no API keys here, and what does not come through the balancer takes slots
    that it does not know of. What replicas may reach is left open: they download their model.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "podSelector": {"matchLabels": names.identity(server, Component.REPLICA)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {"matchLabels": names.identity(server, Component.BALANCER)}}
                    ],
                    "ports": [{"protocol": "TCP", "port": names.LLAMA_SERVER_PORT}],
                }
            ],
        },
    }


def replica_budget(server: LlamaServer) -> Manifest:
    """Node drains take one replica at a time."""
    return _budget(server, names.replicas(server), Component.REPLICA)


def balancer_budget(server: LlamaServer) -> Manifest:
    """Node drains take one balancer at a time."""
    return _budget(server, names.balancer(server), Component.BALANCER)


def worker_budget(server: LlamaServer) -> Manifest:
    """Node drains take one worker at a time: each is a replica's loss."""
    return _budget(server, names.workers(server), Component.WORKER)


def _budget(server: LlamaServer, name: str, component: Component) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(server, name, component),
        "spec": {
            # One is always let go, also where there is one only: a node can always be drained.
            "maxUnavailable": 1,
            # Pods that do not serve are no loss, and would otherwise be in the way for ever.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.identity(server, component)},
        },
    }
