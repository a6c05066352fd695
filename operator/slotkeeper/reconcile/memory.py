"""The memory of servers' GPUs, as far as the spec, the status, the nodes and a Job show it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import JOBS
from slotkeeper.reconcile.observe.accelerators import has_accelerators
from slotkeeper.reconcile.observe.gpu_nodes import GpuNodes, UnknownMemory, unread_memory
from slotkeeper.reconcile.observe.inspection import delay, failure, read_header
from slotkeeper.reconcile.observe.memory import (
    MemoryFacts,
    given_memory,
    recorded,
    recorded_header,
    settings,
)
from slotkeeper.reconcile.observe.memory_choice import choose, recorded_choice, with_choice
from slotkeeper.reconcile.observe.name_conflict import name_conflict
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.problem import Problem

TOO_MANY = Problem(
    Reason.READING_HEADER, "as many Jobs as may run at the same time read those of other servers"
)


class GpuMemory:
    """Adds to what was observed of a server what is known of the memory of its GPUs.

    `wall` is the time of day.
    """

    def __init__(self, nodes: GpuNodes, wall: Callable[[], datetime]) -> None:
        self._nodes = nodes
        self._wall = wall

    async def resolve(
        self, server: LlamaServer, observed: Observed
    ) -> tuple[LlamaServer, Observed]:
        """Return the server with numbers instead of `auto`, as far as they can be chosen, and what
        was observed with the facts of a server that has GPUs."""
        if not has_accelerators(server):
            return server, observed
        pods = [*observed.worker_pods, *observed.replica_pods]
        job, tries = observed.inspection_job, observed.inspection_pods
        header = recorded_header(server) or read_header(tries)
        conflict = name_conflict(server, observed.children, [(JOBS, inspection.name(server))])
        wall = self._wall()
        # A rejected change of a Job that runs keeps it from nothing.
        rejected = "" if job else observed.inspection_rejected
        refused = Problem(Reason.HEADER_UNAVAILABLE, rejected) if rejected else conflict
        size = await self._gpu_bytes(server, pods)
        facts = MemoryFacts(
            files=inspection.sources(server),
            settings=settings(server),
            header=header,
            failure=None if header else refused or failure(job, tries, wall),
            delay=delay(job, tries, server, wall)
            if job or not observed.inspections_full
            else TOO_MANY,
            gpu_bytes=size if isinstance(size, int) else None,
            gpu_unknown=size if isinstance(size, UnknownMemory) else None,
        )
        if not server.spec.automatic:
            return server, replace(observed, memory=facts)
        kept = recorded_choice(server, facts.settings)
        choice = kept or choose(server, facts)
        if isinstance(choice, Problem):
            return server, replace(observed, memory=replace(facts, unchosen=choice))
        facts = replace(facts, choice=choice, is_recorded=kept is not None)
        return with_choice(server, choice), replace(observed, memory=facts)

    async def _gpu_bytes(self, server: LlamaServer, pods: list[Manifest]) -> int | UnknownMemory:
        """The memory of each GPU.

        That of nodes is read while no replica has a node, or after a change of the settings: nodes
        change slowly, and a listing of all of them is large.
        """
        if (given := given_memory(server)) is not None:
            return given
        before = recorded(server)
        same = before.settings == settings(server)
        if same and any(pod["spec"].get("nodeName") for pod in pods):
            return unread_memory(server) if before.gpu_bytes is None else before.gpu_bytes
        found = await self._nodes.memory(server)
        if isinstance(found, UnknownMemory) and same and before.gpu_bytes is not None:
            # A pool of nodes may have been scaled to zero.
            return before.gpu_bytes
        return found
