"""What the manifests of all children have in common."""

from typing import Any

from slotkeeper.api.group import API_VERSION, KIND
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.names import Component, labels

Manifest = dict[str, Any]
"""A Kubernetes object as its JSON tree."""

USER = 65532
"""User and group of every container, whatever its image says: distroless images' "nonroot"."""


def metadata(server: LlamaServer, name: str, component: Component) -> Manifest:
    """Metadata of a child: owned by the server, so that it goes when the server goes."""
    return {
        "name": name,
        "namespace": server.namespace,
        "labels": labels(server, component),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": server.name,
                "uid": server.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def pull_secrets(server: LlamaServer) -> Manifest:
    """The field of a pod that says which Secrets its images are pulled with; none without any."""
    secrets = [{"name": secret.name} for secret in server.spec.image_pull_secrets]
    return {"imagePullSecrets": secrets} if secrets else {}


def pod_basics() -> Manifest:
    """What Pod Security `restricted` asks of a pod, and what keeps its processes to themselves."""
    return {
        # A Service called llama-arg-… would set variables that llama-server reads as arguments.
        "enableServiceLinks": False,
        # The first process of a process namespace is deaf to signals that it does not handle yet:
        # one that is told to end while it starts, or loads, would hold its pod, and its GPU, for
        # all of the grace period.
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def container_security_context() -> Manifest:
    """What Pod Security `restricted` asks of a container, and a root filesystem that stays."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
