"""The Job that reads the headers of a model's files, so that its memory can be planned."""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import model_container, names
from slotkeeper.desired.download_job import download_job, hash_of
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import inspection_placement

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
    """Return the Job."""
    return download_job(
        server,
        name(server),
        Component.INSPECTION,
        {
            **inspection_placement(server),
            "containers": [model_container.container(server, images, downloads, inspect=True)],
            "volumes": model_container.inspection_volumes(server, downloads),
        },
        backoffLimit=TRIES - 1,
        activeDeadlineSeconds=DEADLINE_SECONDS,
    )
