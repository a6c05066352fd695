"""The compute capabilities of the cluster's GPUs, from the labels of its nodes."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil

from slotkeeper.api import quantity
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.metadata import MIB
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.kube.kinds import NODES

CACHE_SECONDS = 30.0
"""How long a listing is used: nodes change slowly, and many pods may wait for one."""

MAX_ARCHES = 64
"""Of all nodes: the limit of the status. Others are ignored."""

Labels = Mapping[str, str]

_MAJOR = re.compile("[1-9][0-9]?", re.ASCII)
_MINOR = re.compile("[0-9]", re.ASCII)
_SIZE = re.compile("[0-9]{1,8}")
"""MiB, less than a hundred TiB: labels of nodes may be anything."""

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
        nodes = await self._selected(selector or {})
        return None if nodes is None else arches(nodes)

    async def memory(self, server: LlamaServer) -> int | None:
        """The bytes of the smallest GPU of the nodes that replicas may use, by their labels; None
        where no node has them, or without the right to list nodes."""
        nodes = await self._selected(server.spec.placement.node_selector)
        return None if nodes is None else smallest_memory(nodes, server)

    async def _selected(self, selector: Labels) -> Sequence[Labels] | None:
        # Passes of other servers wait for a listing that is under way, and use it.
        async with self._lock:
            if self._listed_at is None or self._now() - self._listed_at > CACHE_SECONDS:
                self._nodes = await self._list(self._nodes)
                self._listed_at = self._now()
            nodes = self._nodes
        if nodes is None:
            return None
        return [labels for labels in nodes if selector.items() <= labels.items()]

    async def _list(self, before: Sequence[Labels] | None) -> Sequence[Labels] | None:
        try:
            return _with_gpus((await self._cluster.list(NODES)).items)
        except ApiError as error:
            log.debug("cannot list nodes: %s", error)
            # An operator that serves one namespace has no rights on cluster-scoped objects. Any
            # other failure passes, and nodes change slowly.
            return None if error.status in (401, 403) else before


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


def smallest_memory(nodes: Iterable[Labels], server: LlamaServer) -> int | None:
    """The bytes of the smallest GPU of these nodes that a server may use; None where no label tells
    it."""
    gpu = server.spec.gpu
    key = names.gpu_memory_label(gpu.resource_name)
    if gpu.resource_claims or not key.startswith(gpu.resource_name):
        # A share of a GPU under a name of its own, or the GPU of another vendor.
        return None
    least = ceil(quantity.parse(gpu.min_memory) / MIB) if gpu.min_memory else 0
    sizes = [
        int(labels[key])
        for labels in nodes
        if labels.get(names.GPU_REPLICAS_LABEL, "1") == "1"
        and _SIZE.fullmatch(labels.get(key, ""))
        and (not server.compute_arches or set(arches([labels])) & {*server.compute_arches})
    ]
    return min((size * MIB for size in sizes if size >= max(least, 1)), default=None)


def _with_gpus(nodes: Iterable[Manifest]) -> list[Labels]:
    """The labels of the nodes with GPUs: few of the nodes that a large cluster has."""
    labels = (node["metadata"].get("labels") or {} for node in nodes)
    return [each for each in labels if names.GPU_MAJOR_LABEL in each]
