"""The Job that reads the headers of a model's files, so that its memory can be planned."""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import model_container, names
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest, metadata, pod_basics, pull_secrets
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import inspection_placement
from slotkeeper.desired.prefetch import failure_rules, hash_of

TRIES = 4
"""Pods that may fail before the Job fails: together their pauses take a minute."""

DEADLINE_SECONDS = 1800
"""For all of them: a Secret or a node may be missing."""


def is_possible(server: LlamaServer) -> bool:
    """Whether a pod can read the headers: not of files in llama-server's image."""
    return not model_container.has_file_in_image(server.spec)


def is_required(server: LlamaServer) -> bool:
    """Whether the spec requires it. Otherwise it is useful only where the nodes' labels have the
    memory of their GPUs."""
    gpu = server.spec.gpu
    required = gpu.memory is not None or bool(server.spec.automatic)
    return gpu.count > 0 and required and is_possible(server)


def sources(server: LlamaServer) -> str:
    """Return a hash of what the files are, wherever they are stored."""
    return hash_of(model_container.sources(server.spec))


def name(server: LlamaServer) -> str:
    """Return the Job's name, which changes with the files."""
    return names.inspection(server, sources(server))


def job(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    """Return the Job. Its spec is immutable: the annotation with its hash shows a change."""
    spec = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": TRIES - 1,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "podFailurePolicy": {"rules": failure_rules()},
        "template": _template(server, images, downloads),
    }
    found = metadata(server, name(server), Component.INSPECTION)
    found["annotations"] = {names.TEMPLATE_HASH_ANNOTATION: hash_of(spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": found, "spec": spec}


def _template(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    own = server.spec.pod_template
    annotations = {"annotations": dict(own.annotations)} if own.annotations else {}
    container = model_container.container(server, images, downloads, inspect=True)
    return {
        "metadata": {
            "labels": {**own.labels, **names.labels(server, Component.INSPECTION)},
            **annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            **pod_basics(),
            # Each try is a pod of its own, whose exit code decides whether there is another one.
            "restartPolicy": "Never",
            **pull_secrets(server),
            **inspection_placement(server),
            "containers": [container],
            "volumes": model_container.inspection_volumes(server, downloads),
        },
    }
