"""Parts that the manifests of all child objects share."""

from typing import Any

from slotkeeper.api.group import API_VERSION, KIND
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.names import Component, labels

Manifest = dict[str, Any]
"""A Kubernetes object as a JSON tree."""

USER = 65532
"""User and group of every container, whatever its image sets: "nonroot" of distroless images."""


def metadata(server: LlamaServer, name: str, component: Component) -> Manifest:
    """Return the metadata of a child object, which is garbage-collected with the server."""
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
    """Return the pod's field imagePullSecrets; empty without any."""
    secrets = [{"name": secret.name} for secret in server.spec.image_pull_secrets]
    return {"imagePullSecrets": secrets} if secrets else {}


def pod_basics() -> Manifest:
    """Return the fields of a pod that Pod Security `restricted` requires, and its isolation."""
    return {
        # A Service named llama-arg-… would set variables that llama-server reads as arguments.
        "enableServiceLinks": False,
        # The kernel ignores signals to the first process of a PID namespace unless it has installed
        # a handler. During startup or loading it would ignore SIGTERM, and keep its pod and GPU
        # for the whole grace period.
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # Otherwise the kubelet changes each file of a claim whenever a pod mounts it, which
            # takes long, and looks to the download as if the files had been written.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def container_security_context() -> Manifest:
    """Return what Pod Security `restricted` requires of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
