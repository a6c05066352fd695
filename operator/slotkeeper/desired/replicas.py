"""The llama-servers: their Deployment, and the headless Service that the balancer watches."""

from math import ceil

from slotkeeper.api import quantity
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import fetch, llama_server, names
from slotkeeper.desired.images import Images
from slotkeeper.desired.llama_server import LOADING_SECONDS
from slotkeeper.desired.metadata import DRAIN_SECONDS, Manifest, metadata, pod_security_context
from slotkeeper.desired.names import Component


def deployment(server: LlamaServer, replicas: int, images: Images) -> Manifest:
    """As many llama-servers as `replicas`, each with its model downloaded and checked first."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            # Longer than loading may take, or a slow start would be called a failed rollout.
            "progressDeadlineSeconds": LOADING_SECONDS + DRAIN_SECONDS,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": _rolling_update(server.spec.gpu),
            },
            "selector": {"matchLabels": names.identity(server, Component.REPLICA)},
            "template": {
                "metadata": {"labels": names.labels(server, Component.REPLICA)},
                "spec": _pod(server, images),
            },
        },
    }


def service(server: LlamaServer) -> Manifest:
    """Headless: its EndpointSlices tell the balancer which replicas are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": names.identity(server, Component.REPLICA),
            "ports": [
                {
                    "name": names.HTTP,
                    "protocol": "TCP",
                    "port": names.LLAMA_SERVER_PORT,
                    "targetPort": names.HTTP,
                }
            ],
        },
    }


def _rolling_update(gpu: Gpu) -> Manifest:
    # There may be no spare GPU: a replica more than wanted would wait for one for ever.
    if gpu.count:
        return {"maxSurge": 0, "maxUnavailable": 1}
    return {"maxSurge": 1, "maxUnavailable": 0}


def _pod(server: LlamaServer, images: Images) -> Manifest:
    pod = {
        "automountServiceAccountToken": False,
        # A Service called llama-arg-… would set variables that llama-server reads as arguments.
        "enableServiceLinks": False,
        "securityContext": pod_security_context(),
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "initContainers": [fetch.container(server, images)],
        "containers": [llama_server.container(server, images)],
        "volumes": [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    if demands := _of_nodes(server.spec.gpu):
        pod["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": demands}]
                }
            }
        }
    return pod


def _of_nodes(gpu: Gpu) -> list[Manifest]:
    """What the labels that GPU feature discovery writes must say of a replica's node."""
    demands: list[Manifest] = []
    if gpu.compute_arch:
        major, _, minor = gpu.compute_arch.partition(".")
        demands += [
            {"key": names.GPU_MAJOR_LABEL, "operator": "In", "values": [major]},
            {"key": names.GPU_MINOR_LABEL, "operator": "In", "values": [minor]},
        ]
    if gpu.memory is not None:
        mib = ceil(quantity.parse(gpu.memory) / 1024**2)
        key = names.gpu_memory_label(gpu.resource)
        # There is no operator for "at least".
        demands.append({"key": key, "operator": "Gt", "values": [str(mib - 1)]})
    return demands
