"""Parts that the manifests of all child objects share."""

from collections.abc import Sequence
from typing import Any

from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.group import API_VERSION
from slotkeeper.api.resource import Resource
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.names import (
    CLIENT_PORT,
    HTTP,
    METRICS,
    METRICS_PORT,
    Component,
    labels,
    match_labels,
)

Manifest = dict[str, Any]
"""A Kubernetes object as a JSON tree."""

RBAC_GROUP = "rbac.authorization.k8s.io"

MIB = 1024**2

USER = 65532
"""User and group of every container, whatever its image sets: "nonroot" of distroless images."""


def metadata(owner: Resource, name: str, component: Component) -> Manifest:
    """Return the metadata of a child object, which is garbage-collected with its owner."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner, component),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def pull_secrets(owner: LlamaServer | LlamaGateway) -> Manifest:
    """Return the pod's field imagePullSecrets; empty without any."""
    secrets = [{"name": secret.name} for secret in owner.spec.image_pull_secrets]
    return {"imagePullSecrets": secrets} if secrets else {}


def pod_basics(groups: Sequence[int] = ()) -> Manifest:
    """Return the fields of a pod that Pod Security `restricted` requires, and its isolation.

    `groups`: of the node, besides that of USER.
    """
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
            **({"supplementalGroups": list(groups)} if groups else {}),
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


def role_binding(owner: Resource, name: str, component: Component) -> Manifest:
    """Return the RoleBinding of a Role and a ServiceAccount that both have its name."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(owner, name, component),
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": owner.namespace}],
    }


def service_account(owner: Resource, name: str, component: Component) -> Manifest:
    """Return a ServiceAccount, whose token only pods that ask for it mount."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(owner, name, component),
        "automountServiceAccountToken": False,
    }


def spread_over_nodes(owner: Resource, component: Component) -> Manifest:
    """Return the affinity by which pods of a component are spread over nodes if possible."""
    # Preferred, not required: a cluster may have a single node.
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": match_labels(owner, component)},
    }
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": term}
            ]
        }
    }


def service_port(name: str, number: int) -> Manifest:
    """Return a port of a Service, which has the name of the pods' port."""
    return {"name": name, "protocol": "TCP", "port": number, "targetPort": name}


def cluster_service(owner: Resource, name: str, component: Component) -> Manifest:
    """Return a Service for a component within the cluster, with a second port for metrics."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name, component),
        "spec": {
            "type": "ClusterIP",
            "selector": match_labels(owner, component),
            "ports": [service_port(HTTP, CLIENT_PORT), service_port(METRICS, METRICS_PORT)],
        },
    }


def config_map_volume(name: str, config_map: str) -> Manifest:
    """Return the volume of a ConfigMap, which may not exist."""
    return {
        "name": name,
        "configMap": {"name": config_map, "defaultMode": 0o444, "optional": True},
    }


def secret_volume(name: str, secret: str) -> Manifest:
    """Return the volume of a Secret, without which the pod does not start."""
    # Readable by the group, which fsGroup sets to the container's.
    return {
        "name": name,
        "secret": {"secretName": secret, "defaultMode": 0o440, "optional": False},
    }
