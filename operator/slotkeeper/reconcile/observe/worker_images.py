"""Whether the pods of a group run the same image: llama.cpp's RPC works between equal builds only.

All have the same image in their template. But a tag that was pushed again names different images on
different nodes.
"""

from collections.abc import Iterator, Sequence

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.pods import container_statuses

_CONTAINERS = {names.LLAMA_SERVER_CONTAINER, names.WORKER_CONTAINER}


def different_images(pods: Sequence[Manifest]) -> str | None:
    """Return which pods of one group run different images, and what to do; None where none do.

    `pods`: those of one or more groups.
    """
    groups: dict[str, list[tuple[str, Manifest]]] = {}
    for pod in pods:
        if index := pod["metadata"]["labels"].get(names.POD_INDEX_LABEL):
            groups.setdefault(index, []).extend(_running(pod))
    return next(filter(None, map(_difference, groups.values())), None)


def _running(pod: Manifest) -> Iterator[tuple[str, Manifest]]:
    for status in container_statuses(pod):
        if status["name"] in _CONTAINERS and status.get("imageID"):
            yield pod["metadata"]["name"], status


def _difference(group: Sequence[tuple[str, Manifest]]) -> str | None:
    for name, status in group[1:]:
        first, one = group[0]
        if _digest(status) != _digest(one):
            return (
                f"pods {first} and {name} run different images by the name {one['image']}: name it "
                "by its digest (image: NAME@sha256:…)"
            )
    return None


def _digest(status: Manifest) -> str:
    """The image's digest: runtimes write the repository before it, or nothing."""
    return str(status["imageID"]).rpartition("@")[2]
