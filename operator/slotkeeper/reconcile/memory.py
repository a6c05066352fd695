"""The memory of servers' GPUs, as far as the spec, the status, the nodes and a Job show it."""

from dataclasses import replace

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.accelerators import has_accelerators
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes
from slotkeeper.reconcile.observe.inspection import failure, read_header
from slotkeeper.reconcile.observe.memory import (
    MemoryFacts,
    given_memory,
    recorded,
    recorded_header,
    settings,
)
from slotkeeper.reconcile.observe.memory_choice import choose, recorded_choice, with_choice
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.problem import Problem


class GpuMemory:
    """Adds to what was observed of a server what is known of the memory of its GPUs."""

    def __init__(self, nodes: GpuNodes) -> None:
        self._nodes = nodes

    async def resolve(
        self, server: LlamaServer, observed: Observed
    ) -> tuple[LlamaServer, Observed]:
        """Return the server with numbers instead of `auto`, as far as they can be chosen, and what
        was observed with the facts of a server that has GPUs."""
        if not has_accelerators(server):
            return server, observed
        pods = [*observed.worker_pods, *observed.replica_pods]
        header = recorded_header(server) or read_header(observed.inspection_pods)
        facts = MemoryFacts(
            files=inspection.sources(server),
            settings=settings(server),
            header=header,
            failure="" if header else failure(observed.inspection_job, observed.inspection_pods),
            gpu_bytes=await self._gpu_bytes(server, pods),
        )
        if not server.spec.automatic:
            return server, replace(observed, memory=facts)
        choice = recorded_choice(server, facts.settings) or choose(server, facts)
        if isinstance(choice, Problem):
            return server, replace(observed, memory=replace(facts, unchosen=choice))
        facts = replace(facts, choice=choice)
        return with_choice(server, choice), replace(observed, memory=facts)

    async def _gpu_bytes(self, server: LlamaServer, pods: list[Manifest]) -> int | None:
        """The memory of each GPU.

        That of nodes is read while no replica has a node, or after a change of the settings: nodes
        change slowly, and a listing of all of them is large.
        """
        if (given := given_memory(server)) is not None:
            return given
        before = recorded(server)
        same = before.settings == settings(server)
        if same and any(pod["spec"].get("nodeName") for pod in pods):
            return before.gpu_bytes
        found = await self._nodes.memory(server)
        # A pool of nodes may have been scaled to zero.
        return before.gpu_bytes if found is None and same else found
