"""Every name, label, annotation and port of a server's children, spelled here and nowhere else."""

import hashlib
from enum import StrEnum

from slotkeeper.api.group import FIELD_MANAGER, GROUP
from slotkeeper.api.server import LlamaServer

LLAMA_SERVER_PORT = 8080
BALANCER_PORT = 8080
CLIENT_PORT = 80
METRICS_PORT = 9090
RPC_PORT = 50052
"""Of a worker, for its leader alone."""

HTTP = "http"
"""Name of the port that requests come in by, at replicas and balancer alike."""
RPC = "rpc"
"""Name of a worker's port."""
METRICS = "metrics"
"""Name of the balancer's port for metrics and probes."""

DOWNLOAD_CONTAINER = "download"
LLAMA_SERVER_CONTAINER = "llama-server"
BALANCER_CONTAINER = "balancer"
WORKER_CONTAINER = "rpc-server"
WAIT_CONTAINER = "wait-for-workers"

TOKEN_VOLUME = "model-token"  # noqa: S105 (a volume's name)
"""With the Secret that models are downloaded with."""

SERVER_LABEL = f"{GROUP}/server"
COMPONENT_LABEL = f"{GROUP}/component"
WORKER_LABEL = f"{GROUP}/worker"
"""Which of its replica's workers a pod is, counted from 0."""
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
"""Which of its StatefulSet's pods a pod is, as Kubernetes writes it."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""On all that the operator makes, its own Lease too."""

APPLIED_HASH_ANNOTATION = f"{GROUP}/applied-hash"
"""On each child: hash of the manifest that was last applied, so that a field that is no longer
wanted is noticed."""

WORKERS_HASH_ANNOTATION = f"{GROUP}/workers-hash"
"""On a leader's pod: hash of its workers' manifests, so that it is replaced when they are."""

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-"
"""What the resources of NVIDIA's GPUs, whole and in slices, are called."""

GPU_MAJOR_LABEL = f"{GPU}.compute.major"
GPU_MINOR_LABEL = f"{GPU}.compute.minor"
"""What GPU feature discovery writes on a node: its GPUs' compute capability."""

_LONGEST = 63
_LONGEST_STATEFUL_SET = 52
"""Its pods' labels hold its name with eleven characters more."""


class Component(StrEnum):
    """What a child is a part of: the value of COMPONENT_LABEL."""

    REPLICA = "replica"
    BALANCER = "balancer"
    WORKER = "worker"


def replicas(server: LlamaServer) -> str:
    """Deployment of the llama-servers, and their headless Service."""
    return child_name(server.name, "replicas")


def leaders(server: LlamaServer) -> str:
    """StatefulSet of the llama-servers whose replicas have workers."""
    return child_name(server.name, "replicas", _LONGEST_STATEFUL_SET)


def workers(server: LlamaServer) -> str:
    """Headless Service of all workers, and the NetworkPolicy that guards them."""
    return child_name(server.name, "workers")


def worker(server: LlamaServer, number: int) -> str:
    """StatefulSet of the workers of this number, one for each replica."""
    return child_name(server.name, f"worker-{number}", _LONGEST_STATEFUL_SET)


def worker_host(server: LlamaServer, number: int, replica: str) -> str:
    """Name by which a replica's leader finds its worker of this number."""
    return f"{worker(server, number)}-{replica}.{workers(server)}"


def balancer(server: LlamaServer) -> str:
    """Deployment of the balancer, with its ServiceAccount, Role, RoleBinding and Lease."""
    return child_name(server.name, "balancer")


def clients(server: LlamaServer) -> str:
    """Service that clients use."""
    return server.name


def client_url(server: LlamaServer) -> str:
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


def child_name(owner: str, suffix: str, longest: int = _LONGEST) -> str:
    """`OWNER-SUFFIX`, with the owner cut and hashed where it is longer than `longest`."""
    name = f"{owner}-{suffix}"
    if len(name) <= longest:
        return name
    tail = f"-{hashlib.sha256(owner.encode()).hexdigest()[:8]}-{suffix}"
    return owner[: longest - len(tail)].rstrip("-") + tail
