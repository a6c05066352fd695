"""Problems with the cache of a node. Pure."""

import re

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import prompt_volume
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.model_container import MODELS_VOLUME, has_storage
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.problem import Problem


def not_allowed(server: LlamaServer, downloads: DownloadSettings) -> Problem | None:
    """The problem of a server that uses a folder of its node, which the chart does not allow."""
    if not prompt_volume.has_storage(server, downloads):
        return Problem(
            Reason.NODE_CACHE_NOT_ALLOWED,
            "spec.promptCache.node: the administrator has not allowed it: set the chart value "
            "nodeCache.promptsPath, or use promptCache.claimName",
        )
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
    return any(each["name"] in _VOLUMES and "hostPath" in each for each in volumes)


def folder_missing(pod: Manifest) -> Problem:
    """The problem of a pod whose folder the agent of its node has not created."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    node = pod["spec"].get("nodeName", "")
    return Problem(
        Reason.NODE_CACHE_UNAVAILABLE,
        f"node {node} has no folder for this pod in its cache: check that a pod of "
        "Slotkeeper's DaemonSet (chart value nodeCache) runs on it, and see the events of "
        f"kubectl describe --namespace={namespace} pods/{name}",
    )


def pod_security_remedy(message: str) -> str:
    """What to add to the message of a pod that was not created: the remedy, if it is the volume of
    the cache that Pod Security forbids."""
    if "violates PodSecurity" not in message:
        return ""
    # Of two volumes it names both, in their order.
    forbidden = (
        field
        for name, field in _VOLUMES.items()
        if re.search(f'volumes? [^()]*"{name}"[^()]* restricted volume type', message)
    )
    field = next(forbidden, None)
    if field is None:
        return ""
    return (
        f"; {field}.node needs hostPath volumes: ask the administrator to label the namespace "
        f"pod-security.kubernetes.io/enforce=privileged, or use {field}.claimName"
    )


_VOLUMES = {MODELS_VOLUME: "model.cache", prompt_volume.VOLUME: "promptCache"}
"""Volumes that may be folders of the node, and the fields for them."""
