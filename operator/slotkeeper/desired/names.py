"""Names, labels, annotations and ports of child objects, each spelled only here."""

from enum import StrEnum

from slotkeeper.api import child_name as child_names
from slotkeeper.api.child_name import child_name
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.group import FIELD_MANAGER, GATEWAY_KIND, GROUP, KIND
from slotkeeper.api.resource import Resource
from slotkeeper.api.server import LlamaServer

LLAMA_SERVER_PORT = 8080
BALANCER_PORT = 8080
GATEWAY_PORT = 8080
CLIENT_PORT = 80
TLS_CLIENT_PORT = 443
METRICS_PORT = 9090
RPC_PORT = 50052
"""Of a worker, for its leader only."""
PROGRESS_PORT = 9091
"""Of a download, for the operator only."""
PROMPT_FILES_PORT = 9094
"""Of the agent of prompt files, for the balancers only."""

HTTP = "http"
"""Name of the port for requests, of replicas, balancers and gateways."""
HTTPS = "https"
"""Name of a gateway's port for requests with TLS."""
RPC = "rpc"
"""Name of a worker's port."""
PROGRESS = "progress"
"""Name of the port for the progress of a download."""
PROMPT_FILES = "prompt-files"
"""Name of the port of the agent of prompt files."""
METRICS = "metrics"
"""Name of the port for metrics and probes, of balancers and gateways."""

DOWNLOAD_CONTAINER = "download"
LLAMA_SERVER_CONTAINER = "llama-server"
BALANCER_CONTAINER = "balancer"
PREPARE_PROMPT_FILES_CONTAINER = "prepare-prompt-files"
PROMPT_FILES_CONTAINER = "prompt-files"
PROMPT_CLEANUP_CONTAINER = "remove-prompt-files"
WORKER_CONTAINER = "rpc-server"
WAIT_CONTAINER = "wait-for-workers"
GATEWAY_CONTAINER = "gateway"
BATCHES_CONTAINER = "batches"

TOKEN_VOLUME = "model-token"  # noqa: S105 (the name of a volume)
"""Volume with the token for downloads."""
CLAIM_VOLUME = "model-claim"
"""Volumes of claims with files of the model; followed by a number."""
S3_VOLUME = "model-s3"
S3_SESSION_VOLUME = "model-s3-session"
"""Volume with the access key of an object store."""
CA_VOLUME = "model-ca"
"""Volume with the certificates of private authorities for downloads."""

SERVER_LABEL = f"{GROUP}/server"
GATEWAY_LABEL = f"{GROUP}/gateway"
OWNER_LABELS = {KIND: SERVER_LABEL, GATEWAY_KIND: GATEWAY_LABEL}
"""Label of the children of each kind of resource, with the resource's name."""
COMPONENT_LABEL = f"{GROUP}/component"
PROMPT_FOLDER_LABEL = f"{GROUP}/prompt-folder"
"""On the Job that removes a folder of prompts: the uid of its server, which is the folder's
name."""
WORKER_LABEL = f"{GROUP}/worker"
"""Index of a worker pod within its replica, from 0."""
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
"""Index of a pod within its StatefulSet, set by Kubernetes."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""On all objects that the operator creates, including its own Lease."""

APPLIED_HASH_ANNOTATION = f"{GROUP}/applied-hash"
"""On each child: hash of the manifest that was applied last, to detect fields that have been
removed from it."""

ACCEPTED_ADVISORIES_ANNOTATION = f"{GROUP}/accepted-advisories"
"""On a LlamaServer: ids of published vulnerabilities that its owner has reviewed and accepts."""

WORKERS_HASH_ANNOTATION = f"{GROUP}/workers-hash"
"""On a leader's pod: hash of its workers' manifests, so that it is replaced with them."""

ACCOUNT_UID_ANNOTATION = f"{GROUP}/service-account-uid"
"""On a balancer's pod: the uid of its ServiceAccount, so that it is replaced with it."""
TEMPLATE_HASH_ANNOTATION = f"{GROUP}/template-hash"
"""On a balancer's pod: hash of its template, by which pods of the current one are recognized. On a
Job: hash of its spec, which is immutable."""

NVIDIA = "nvidia.com/"
GPU = f"{NVIDIA}gpu"
MIG = f"{NVIDIA}mig-"
"""Resource name of NVIDIA's GPUs, and its prefix for MIG slices."""

KUEUE_GATE = "kueue.x-k8s.io/"
"""Prefix of the scheduling gates that a pod has until Kueue admits it."""

GPU_MAJOR_LABEL = f"{GPU}.compute.major"
GPU_MINOR_LABEL = f"{GPU}.compute.minor"
GPU_REPLICAS_LABEL = f"{GPU}.replicas"
"""Labels of a node with the compute capability of its GPUs, and in how many each is shared, set by
GPU feature discovery."""

_MAX_STATEFUL_SET_LENGTH = 52
"""Labels of its pods contain its name and eleven more characters."""


class Component(StrEnum):
    """Component that a child object belongs to: the value of COMPONENT_LABEL."""

    REPLICA = "replica"
    BALANCER = "balancer"
    WORKER = "worker"
    PREFETCH = "prefetch"
    INSPECTION = "inspection"
    PROMPTS = "prompts"
    GATEWAY = "gateway"
    BATCHES = "batches"


OPERATOR_LABELS = {
    "app.kubernetes.io/part-of": "slotkeeper",
    "app.kubernetes.io/component": "operator",
}
"""Labels of the operator's own pods, in every release of the chart."""

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""On each namespace, with its name; set by Kubernetes."""


def replicas(server: LlamaServer) -> str:
    """Return the name of the replicas' Deployment and headless Service."""
    return child_name(server.name, "replicas")


def leaders(server: LlamaServer) -> str:
    """Return the name of the StatefulSet of llama-servers that have workers."""
    return child_name(server.name, "replicas", _MAX_STATEFUL_SET_LENGTH)


def workers(server: LlamaServer) -> str:
    """Return the name of the workers' headless Service, NetworkPolicy and PodDisruptionBudget."""
    return child_name(server.name, "workers")


def worker(server: LlamaServer, number: int) -> str:
    """Return the name of the StatefulSet with one worker, of this index, for each replica."""
    return child_name(server.name, f"worker-{number}", _MAX_STATEFUL_SET_LENGTH)


def worker_host(server: LlamaServer, number: int, replica: str) -> str:
    """Return the host name of a replica's worker of this index."""
    return f"{worker(server, number)}-{replica}.{workers(server)}"


def prefetch(server: LlamaServer, content: str) -> str:
    """Return the name of the Job that downloads the files with this hash of their sources."""
    return child_name(server.name, f"prefetch-{content}")


def inspection(server: LlamaServer, sources: str) -> str:
    """Return the name of the Job that reads the headers of the files with this hash of their
    sources."""
    return child_name(server.name, f"inspection-{sources}")


def prompt_cleanup(server: LlamaServer, content: str) -> str:
    """Return the name of the Job, with this hash of its content, that removes a folder of
    prompts."""
    return child_name(server.name, f"prompts-{content}")


def balancer(server: LlamaServer) -> str:
    """Return the name of the balancers' Deployment, ServiceAccount, Role, RoleBinding
    and Lease."""
    return child_name(server.name, "balancer")


def client_service(server: LlamaServer) -> str:
    """Return the name of the Service for clients."""
    return server.name


def client_url(server: LlamaServer) -> str:
    """Return the URL for clients in the cluster. CLIENT_PORT is the default port of HTTP."""
    return f"http://{client_service(server)}.{server.namespace}.svc"


def gateway(owner: LlamaGateway) -> str:
    """Return the name of the gateway's Deployment and of all its other children but the Service."""
    return child_name(owner.name, "gateway")


def batches(owner: LlamaGateway) -> str:
    """Return the name of the Deployment, Service and claim of a gateway's batches."""
    return child_names.batches(owner.name)


def gateway_url(owner: LlamaGateway) -> str:
    """Return the URL of a gateway for clients in the cluster, with the default port of HTTP(S)."""
    scheme = HTTPS if owner.spec.tls else HTTP
    return f"{scheme}://{owner.name}.{owner.namespace}.svc"


def match_labels(owner: Resource, component: Component) -> dict[str, str]:
    """Return the labels for selectors. They never change, because selectors are immutable."""
    return {OWNER_LABELS[owner.kind]: owner.name, COMPONENT_LABEL: component.value}


def labels(owner: Resource, component: Component) -> dict[str, str]:
    """Return all labels of a child: those for selectors, and the recommended ones."""
    return match_labels(owner, component) | {
        "app.kubernetes.io/name": owner.kind.lower(),
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/component": component.value,
        MANAGED_BY_LABEL: FIELD_MANAGER,
    }


def selector(server: LlamaServer, component: Component) -> str:
    """Return the label selector as text, for queries to the API and for /scale."""
    return ",".join(f"{key}={value}" for key, value in match_labels(server, component).items())


def gpu_memory_label(resource: str) -> str:
    """Return the label of a node with the MiB of each GPU, set by GPU feature discovery.

    With MIG slices of different sizes, each size has its own label.
    """
    return f"{resource}.memory" if resource.startswith(MIG) else f"{GPU}.memory"
