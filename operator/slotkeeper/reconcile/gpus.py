"""The GPUs of servers: what `auto` stands for, and whether they have an image."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from slotkeeper.api.compute_capability import AUTO
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.images import Images
from slotkeeper.reconcile.memory import GpuMemory
from slotkeeper.reconcile.observe.gpu_choice import choose, is_open, no_image
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import is_unschedulable
from slotkeeper.reconcile.observe.problem import Problem


class Gpus:
    """Adds to what was observed of a server what the nodes with GPUs show.

    `wall` is the time of day.
    """

    def __init__(self, nodes: GpuNodes, images: Images, wall: Callable[[], datetime]) -> None:
        self._nodes = nodes
        self._memory = GpuMemory(nodes, wall)
        self._images = images

    async def resolve(
        self, server: LlamaServer, observed: Observed
    ) -> tuple[LlamaServer, Observed, Problem | None]:
        """Return the server with its choice of GPUs, what was observed, and why it cannot run."""
        pods = [*observed.worker_pods, *observed.replica_pods]
        found, listed = None, True
        if is_open(server, pods):
            found = await self._nodes.compute_arches(server.spec.placement.node_selector)
            listed = found is not None
        choice = choose(server, self._images, found)
        observed = replace(observed, chosen_for=choice.arches)
        if any(map(is_unschedulable, pods)):
            observed = await self._with_nodes(choice.server, observed)
        resolved, observed = await self._memory.resolve(choice.server, observed)
        return resolved, observed, no_image(choice, self._images, listed=listed)

    async def _with_nodes(self, server: LlamaServer, observed: Observed) -> Observed:
        """Add what no node has of the GPUs that a replica waits for."""
        gpu = server.spec.gpu
        if gpu.compute_arch not in (None, AUTO):
            observed = replace(observed, compute_arches=await self._nodes.compute_arches())
        if gpu.min_memory is not None:
            observed = replace(
                observed, too_small_memory=await self._nodes.too_small_memory(server)
            )
        return observed
