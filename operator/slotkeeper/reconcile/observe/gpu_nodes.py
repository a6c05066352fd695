"""Which compute capabilities the GPUs of the cluster have."""

import logging
from collections.abc import Callable, Iterable, Sequence

from slotkeeper.desired import names
from slotkeeper.kube.cluster import ApiError, Cluster, Manifest
from slotkeeper.kube.kinds import NODES

KEEP_SECONDS = 30.0
"""How long an answer is good for: nodes come and go slowly, and many pods may wait for one."""

log = logging.getLogger(__name__)


class GpuNodes:
    """The cluster's nodes, as far as their labels tell of GPUs. Read only when it is asked for."""

    def __init__(self, cluster: Cluster, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._now = now
        self._read_at: float | None = None
        self._arches: Sequence[str] | None = None

    async def compute_arches(self) -> Sequence[str] | None:
        """Those that some node has, as `7.5`, in order; None where nodes may not be read."""
        if self._read_at is None or self._now() - self._read_at > KEEP_SECONDS:
            self._read_at = self._now()
            self._arches = await self._read()
        return self._arches

    async def _read(self) -> Sequence[str] | None:
        try:
            return arches((await self._cluster.list(NODES)).items)
        except ApiError as error:
            # An operator for one namespace has no rights to what belongs to the cluster.
            log.debug("nodes: %s", error)
            return None


def arches(nodes: Iterable[Manifest]) -> list[str]:
    """The compute capabilities that these nodes are labelled with, in order."""
    labels = (node["metadata"].get("labels") or {} for node in nodes)
    found = {
        (label.get(names.GPU_MAJOR_LABEL), label.get(names.GPU_MINOR_LABEL)) for label in labels
    }
    numbers = sorted(
        (int(major), int(minor))
        for major, minor in found
        if major is not None and minor is not None and (major + minor).isdecimal()
    )
    return [f"{major}.{minor}" for major, minor in numbers]
