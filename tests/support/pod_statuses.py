"""Pod statuses as Kubernetes writes them, for replicas that do not run yet."""

import json
from typing import Any

from slotkeeper.kube.cluster import Manifest

DOWNLOAD_IMAGE = "slotkeeper/download:0.1.0"
LLAMA_SERVER_IMAGE = "slotkeeper/llama-server:0.1.0"

RUNNING: Manifest = {"running": {}}
CRASH_LOOP: Manifest = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
IMAGE_NOT_FOUND: Manifest = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
"""States of a container."""


def terminated(message: str = "", code: int = 1, **fields: Any) -> Manifest:
    """The state of a container that exited; `message` is its termination message."""
    return {"terminated": {"exitCode": code, "message": message, **fields}}


def download_error(reason: str, message: str) -> Manifest:
    """The state of a download that reported why it failed."""
    return terminated(json.dumps({"reason": reason, "message": message}))


def download(**status: Any) -> Manifest:
    """A pod whose download container has this state, lastState or restartCount."""
    container = {"name": "download", "image": DOWNLOAD_IMAGE, "ready": False, **status}
    return {"initContainerStatuses": [container]}


def llama_server(**status: Any) -> Manifest:
    """A pod that has downloaded its model, and whose llama-server has this state."""
    downloaded = {
        "name": "download",
        "image": DOWNLOAD_IMAGE,
        "ready": True,
        "state": {"terminated": {"exitCode": 0}},
    }
    container = {"name": "llama-server", "image": LLAMA_SERVER_IMAGE, "ready": False, **status}
    return {"initContainerStatuses": [downloaded], "containerStatuses": [container]}


def unschedulable(message: str) -> Manifest:
    """A pod for which the scheduler finds no node."""
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return {"conditions": [scheduled]}


SCHEDULING_GATED: Manifest = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
    ]
}
"""A pod with scheduling gates, as the API server writes it."""


def volumes_not_mounted(**condition: str) -> Manifest:
    """A pod that has a node and not its volumes, as while a Secret is missing."""
    return {"conditions": [{"type": "PodReadyToStartContainers", "status": "False", **condition}]}
