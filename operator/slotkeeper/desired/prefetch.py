"""The Job that downloads and verifies a server's model before a replica is desired."""

import hashlib
import json

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import model_container, names
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest, metadata, pod_basics, pull_secrets
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import prefetch_placement

TRIES = 7
"""Pods that may fail before the Job fails. Kubernetes doubles the pauses between them from ten
seconds on: together they take eleven minutes."""

EXIT_FAILURE = 1
"""Exit code of a download that must not be retried."""


def is_used(server: LlamaServer, downloads: DownloadSettings) -> bool:
    """Whether the server has such a Job: there is a file to download, and storage for it."""
    model = server.spec.model
    return (
        server.spec.prefetch
        and not model_container.is_provided(server.spec)
        and model_container.has_storage(model, downloads)
    )


def name(server: LlamaServer) -> str:
    """Return the Job's name, which changes with what is downloaded, from where, and where to.

    Nothing else changes it: a new release of Slotkeeper must not download every model again.
    """
    return names.prefetch(server, hash_of(model_container.content(server.spec)))


def job(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    """Return the Job. Its spec is immutable: the annotation with its hash shows a change.

    It has one pod, also with the cache of the node: one for each node that replicas may use would
    download as often, and one without a node left would keep the Job from ending.
    """
    spec = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": TRIES - 1,
        "podFailurePolicy": {"rules": failure_rules()},
        "template": _template(server, images, downloads),
    }
    found = metadata(server, name(server), Component.PREFETCH)
    found["annotations"] = {names.TEMPLATE_HASH_ANNOTATION: hash_of(spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": found, "spec": spec}


def failure_rules() -> list[Manifest]:
    """Return the rules by which a pod that downloads fails its Job."""
    return [
        # Evicted, preempted, or on a node that is drained: no failure of the download.
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": names.DOWNLOAD_CONTAINER,
                "operator": "In",
                "values": [EXIT_FAILURE],
            },
        },
    ]


def _template(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    own = server.spec.pod_template
    annotations = {"annotations": dict(own.annotations)} if own.annotations else {}
    return {
        "metadata": {
            "labels": {**own.labels, **names.labels(server, Component.PREFETCH)},
            **annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            **pod_basics(),
            # Each try is a pod of its own, whose exit code decides whether there is another one.
            "restartPolicy": "Never",
            **pull_secrets(server),
            **prefetch_placement(server),
            "containers": [model_container.container(server, images, downloads)],
            "volumes": model_container.volumes(server, downloads),
        },
    }


def hash_of(tree: object) -> str:
    """Return eight hex digits, the same for equal trees of JSON."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
