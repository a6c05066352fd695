"""The compute capabilities of the cluster's GPUs, from the labels of its nodes."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.kube.kinds import NODES

CACHE_SECONDS = 30.0
"""How long a listing is used: nodes change slowly, and many pods may wait for one."""

MAX_ARCHES = 64
"""Of all nodes: the limit of the status. Others are ignored."""

Labels = Mapping[str, str]

_MAJOR = re.compile("[1-9][0-9]?", re.ASCII)
_MINOR = re.compile("[0-9]", re.ASCII)

log = logging.getLogger(__name__)


class GpuNodes:
    """The cluster's nodes with GPUs. Listed only when needed; `now` is in seconds."""

    def __init__(self, cluster: Cluster, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._now = now
        self._lock = asyncio.Lock()
        self._listed_at: float | None = None
        self._nodes: Sequence[Labels] | None = None

    async def compute_arches(self, selector: Labels | None = None) -> Sequence[str] | None:
        """The compute capabilities of all nodes with the labels `selector`, such as `7.5`, sorted;
        None without the right to list nodes."""
        # Passes of other servers wait for a listing that is under way, and use it.
        async with self._lock:
            if self._listed_at is None or self._now() - self._listed_at > CACHE_SECONDS:
                self._nodes = await self._list()
                self._listed_at = self._now()
            nodes = self._nodes
        if nodes is None:
            return None
        required = (selector or {}).items()
        return arches(labels for labels in nodes if required <= labels.items())

    async def _list(self) -> Sequence[Labels] | None:
        try:
            return _with_gpus((await self._cluster.list(NODES)).items)
        except ApiError as error:
            # An operator that serves one namespace has no rights on cluster-scoped objects.
            log.debug("cannot list nodes: %s", error)
            return None


def arches(nodes: Iterable[Labels]) -> list[str]:
    """The compute capabilities in these nodes' labels, sorted.

    A label may have any value, also none: whoever administers a node can set it.
    """
    found = {
        (labels.get(names.GPU_MAJOR_LABEL, ""), labels.get(names.GPU_MINOR_LABEL, ""))
        for labels in nodes
    }
    numbers = sorted(
        (int(major), int(minor))
        for major, minor in found
        if _MAJOR.fullmatch(major) and _MINOR.fullmatch(minor)
    )
    return [f"{major}.{minor}" for major, minor in numbers[:MAX_ARCHES]]


def _with_gpus(nodes: Iterable[Manifest]) -> list[Labels]:
    """The labels of the nodes with GPUs: few of the nodes that a large cluster has."""
    labels = (node["metadata"].get("labels") or {} for node in nodes)
    return [each for each in labels if names.GPU_MAJOR_LABEL in each]
