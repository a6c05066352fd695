"""The Job that downloads and verifies a server's model before a replica is desired."""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import model_container, names
from slotkeeper.desired.download_job import download_job, hash_of
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import prefetch_placement

TRIES = 7
"""Pods that may fail before the Job fails. Kubernetes doubles the pauses between them from ten
seconds on: together they take eleven minutes."""


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
    """Return the Job.

    It has one pod, also with the cache of the node: one for each node that replicas may use would
    download as often, and one without a node left would keep the Job from ending.
    """
    return download_job(
        server,
        name(server),
        Component.PREFETCH,
        {
            **prefetch_placement(server),
            "containers": [model_container.container(server, images, downloads)],
            "volumes": model_container.volumes(server, downloads),
        },
        backoffLimit=TRIES - 1,
    )
