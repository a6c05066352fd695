"""Every name, label, annotation and port of a server's children, spelled here and nowhere else."""

import hashlib
from enum import StrEnum

from slotkeeper.api.server import GROUP, LlamaServer

FIELD_MANAGER = "slotkeeper"

LLAMA_SERVER_PORT = 8080
BALANCER_PORT = 8080
CLIENT_PORT = 80
METRICS_PORT = 9090

HTTP = "http"
"""Name of the port that requests come in by, at replicas and balancer alike."""
METRICS = "metrics"
"""Name of the balancer's port for metrics and probes."""

MODEL_CONTAINER = "model"
LLAMA_SERVER_CONTAINER = "llama-server"
BALANCER_CONTAINER = "balancer"

SERVER_LABEL = f"{GROUP}/server"
COMPONENT_LABEL = f"{GROUP}/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""On all that the operator makes, its own Lease too."""

APPLIED_ANNOTATION = f"{GROUP}/applied"
"""On each child: hash of the manifest that was last applied, so that a field that is no longer
wanted is noticed."""

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-"
"""What the resources of NVIDIA's GPUs, whole and in slices, are called."""

GPU_MAJOR_LABEL = f"{GPU}.compute.major"
GPU_MINOR_LABEL = f"{GPU}.compute.minor"
"""What GPU feature discovery writes on a node: its GPUs' compute capability."""

_LONGEST = 63


class Component(StrEnum):
    """What a child is a part of: the value of COMPONENT_LABEL."""

    REPLICA = "replica"
    BALANCER = "balancer"


def replicas(server: LlamaServer) -> str:
    """Deployment of the llama-servers, and their headless Service."""
    return child_name(server.name, "replicas")


def balancer(server: LlamaServer) -> str:
    """Deployment of the balancer, with its ServiceAccount, Role, RoleBinding and Lease."""
    return child_name(server.name, "balancer")


def clients(server: LlamaServer) -> str:
    """Service that clients use."""
    return server.name


def endpoint(server: LlamaServer) -> str:
    """URL that clients in the cluster use."""
    return f"http://{clients(server)}.{server.namespace}.svc:{CLIENT_PORT}"


def identity(server: LlamaServer, component: Component) -> dict[str, str]:
    """The labels that selectors go by. They never change, as a selector may not."""
    return {SERVER_LABEL: server.name, COMPONENT_LABEL: component.value}


def labels(server: LlamaServer, component: Component) -> dict[str, str]:
    """All labels of a child: its identity, and what the usual tools look for."""
    return identity(server, component) | {
        "app.kubernetes.io/name": "llamaserver",
        "app.kubernetes.io/instance": server.name,
        "app.kubernetes.io/component": component.value,
        MANAGED_BY_LABEL: FIELD_MANAGER,
    }


def selector(server: LlamaServer, component: Component) -> str:
    """The identity as a label selector in text, as the API's queries and /scale take it."""
    return ",".join(f"{key}={value}" for key, value in identity(server, component).items())


def gpu_memory_label(resource: str) -> str:
    """What GPU feature discovery writes on a node: the MiB of each of its GPUs.

    GPUs that are cut into slices of different sizes have a label for each size.
    """
    return f"{resource}.memory" if resource.startswith(MIG) else f"{GPU}.memory"


def child_name(owner: str, suffix: str) -> str:
    """`OWNER-SUFFIX`, with the owner cut and hashed where that is more than 63 characters."""
    name = f"{owner}-{suffix}"
    if len(name) <= _LONGEST:
        return name
    tail = f"-{hashlib.sha256(owner.encode()).hexdigest()[:8]}-{suffix}"
    return owner[: _LONGEST - len(tail)].rstrip("-") + tail
