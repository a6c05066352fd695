"""Problems with the cache of a node. Pure."""

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.model_container import MODELS_VOLUME, has_storage
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.problem import Problem


def not_allowed(server: LlamaServer, downloads: DownloadSettings) -> Problem | None:
    """The problem of a server that uses the cache of its node, which the chart does not allow."""
    if has_storage(server.spec.model, downloads):
        return None
    return Problem(
        Reason.NODE_CACHE_NOT_ALLOWED,
        "spec.model.cache.node: the administrator has not allowed it: set the chart value "
        "nodeCache.enabled, or use model.cache.claimName",
    )


def is_of_node(problem: Problem, server: LlamaServer) -> bool:
    """Whether a download failed because of the node that it ran on: another one may have room."""
    return server.spec.model.cache.node and problem.reason in _STORAGE


_STORAGE = frozenset({Reason.INSUFFICIENT_STORAGE, Reason.STORAGE_ERROR})


def is_on_node_cache(pod: Manifest) -> bool:
    """Whether this pod mounts a folder of the cache of its node."""
    volumes = pod["spec"].get("volumes") or ()
    return any(each["name"] == MODELS_VOLUME and "hostPath" in each for each in volumes)


def folder_missing(pod: Manifest) -> Problem:
    """The problem of a pod whose folder the agent of its node has not created."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    node = pod["spec"].get("nodeName", "")
    return Problem(
        Reason.NODE_CACHE_UNAVAILABLE,
        f"node {node} has no folder for this namespace in its cache: check that a pod of "
        "Slotkeeper's DaemonSet (chart value nodeCache) runs on it, and see the events of "
        f"kubectl describe --namespace={namespace} pods/{name}",
    )


def pod_security_remedy(message: str) -> str:
    """What to add to the message of a pod that was not created: the remedy, if it is the volume of
    the cache that Pod Security forbids."""
    if "violates PodSecurity" not in message or f'volume "{MODELS_VOLUME}"' not in message:
        return ""
    return (
        "; model.cache.node needs hostPath volumes: ask the administrator to label the namespace "
        "pod-security.kubernetes.io/enforce=privileged, or use model.cache.claimName"
    )
