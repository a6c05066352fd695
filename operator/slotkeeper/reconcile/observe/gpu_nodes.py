"""The compute capabilities and the memory of the cluster's GPUs, from the labels of its nodes."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

_GPU_LABELS = {names.GPU_MAJOR_LABEL, names.gpu_memory_label(names.GPU)}

_NOT_KNOWN = "the memory of the GPUs is not known"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnknownMemory:
    """The memory of the GPUs that a server may use is not known."""

    why: str
    remedy: str = "set gpu.memory"


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

    async def memory(self, server: LlamaServer) -> int | UnknownMemory:
        """The bytes of the smallest GPU of the nodes that replicas may use, by their labels."""
        return smallest_memory(await self._selected(server.spec.placement.node_selector), server)

    async def too_small_memory(self, server: LlamaServer) -> str:
        """Why no node that replicas may use has `gpu.minMemory`; empty where one has it, or without
        the right to list nodes."""
        nodes = await self._selected(server.spec.placement.node_selector)
        return "" if nodes is None else too_small_memory(nodes, server)

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


def memory_beside_nodes(server: LlamaServer) -> UnknownMemory | None:
    """Why no label of any node has the memory of a server's GPUs; None where one may have it."""
    gpu = server.spec.gpu
    if gpu.resource_claims:
        return UnknownMemory(f"{_NOT_KNOWN}: no label of a node has that of the GPUs of a claim")
    if not names.gpu_memory_label(gpu.resource_name).startswith(gpu.resource_name):
        # A share of a GPU under a name of its own, or the GPU of another vendor.
        return UnknownMemory(f"{_NOT_KNOWN}: no label of a node has that of {gpu.resource_name}")
    return None


def unread_memory(server: LlamaServer) -> UnknownMemory:
    """Why the memory is not known after a replica got its node, from when on no label is read."""
    key = names.gpu_memory_label(server.spec.gpu.resource_name)
    why = f"{_NOT_KNOWN}: when a replica got its node, it could not be read from the label {key}"
    return memory_beside_nodes(server) or UnknownMemory(why)


def smallest_memory(nodes: Iterable[Labels] | None, server: LlamaServer) -> int | UnknownMemory:
    """The bytes of the smallest GPU of these nodes that a server may use."""
    if beside := memory_beside_nodes(server):
        return beside
    if nodes is None:
        return UnknownMemory(f"{_NOT_KNOWN}: the operator may not list nodes")
    sizes = _sizes(nodes, server)
    if too_small := _too_small(sizes, server):
        remedy = "lower gpu.minMemory, or set gpu.memory if nodes are added later"
        return UnknownMemory(too_small, remedy)
    if not sizes:
        return UnknownMemory(f"{_NOT_KNOWN}: {_no_label(server)}")
    enough = [(size, labels) for size, labels in sizes if size >= _least(server)]
    whole = [size for size, labels in enough if labels.get(names.GPU_REPLICAS_LABEL, "1") == "1"]
    if not whole:
        why = f"{_NOT_KNOWN}: the GPUs are shared, and the label has that of a whole one"
        return UnknownMemory(why)
    return min(whole) * MIB


def too_small_memory(nodes: Iterable[Labels], server: LlamaServer) -> str:
    """Why none of these nodes has `gpu.minMemory`; empty where one has it."""
    return _too_small(_sizes(nodes, server), server)


def _too_small(sizes: Sequence[tuple[int, Labels]], server: LlamaServer) -> str:
    largest = max((size for size, _ in sizes), default=0)
    if server.spec.gpu.min_memory is None or largest >= _least(server):
        return ""
    found = f"the largest has {_text(largest)}" if largest else _no_label(server)
    return f"{_no_node(server)} has GPUs with {server.spec.gpu.min_memory}: {found}"


def _sizes(nodes: Iterable[Labels], server: LlamaServer) -> list[tuple[int, Labels]]:
    """The MiB of each GPU of the nodes that have the compute capability, where a label has them."""
    key = names.gpu_memory_label(server.spec.gpu.resource_name)
    return [
        (int(labels[key]), labels)
        for labels in nodes
        if _SIZE.fullmatch(labels.get(key, ""))
        and int(labels[key])
        and (not server.compute_arches or set(arches([labels])) & {*server.compute_arches})
    ]


def _least(server: LlamaServer) -> int:
    least = server.spec.gpu.min_memory
    return ceil(quantity.parse(least) / MIB) if least else 0


def _no_label(server: LlamaServer) -> str:
    key = names.gpu_memory_label(server.spec.gpu.resource_name)
    return f"{_no_node(server)} has the label {key}, which GPU feature discovery sets"


def _no_node(server: LlamaServer) -> str:
    is_limited = server.spec.placement.node_selector or server.compute_arches
    return "no node that replicas may use" if is_limited else "no node"


def _text(mib: int) -> str:
    return f"{mib}Mi" if mib % 1024 else f"{mib // 1024}Gi"


def _with_gpus(nodes: Iterable[Manifest]) -> list[Labels]:
    """The labels of the nodes with GPUs: few of the nodes that a large cluster has."""
    labels = (node["metadata"].get("labels") or {} for node in nodes)
    return [each for each in labels if not _GPU_LABELS.isdisjoint(each)]
