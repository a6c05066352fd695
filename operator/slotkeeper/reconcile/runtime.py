"""Runs the operator: work queue, watches, demand polling, resync and leader election."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import kopf

from slotkeeper.kube.cluster import ApiError, Cluster, Manifest, NotFound, WatchEvent
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.accelerators.poller import LOG_SECONDS, StartLogReader
from slotkeeper.reconcile.demand.poller import POLL_SECONDS, DemandPoller
from slotkeeper.reconcile.demand.tracker import TrackedDemand
from slotkeeper.reconcile.downloads.poller import PROGRESS_SECONDS, ProgressPoller
from slotkeeper.reconcile.fair_lane import FairLane
from slotkeeper.reconcile.gateways.runtime import GatewayRuntime
from slotkeeper.reconcile.leader_election import OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.passes import (
    enqueue_changed,
    periodically,
    resync_periodically,
    run_pass,
    run_queue,
)
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.state import States
from slotkeeper.reconcile.watch import kopf_watch
from slotkeeper.reconcile.watch.informers import (
    LIST_SECONDS,
    informers,
    list_into,
    run_informers,
)
from slotkeeper.reconcile.watch.kopf_watch import MAX_IDLE_TIMEOUT
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import WorkQueue

SLICE = 10
"""Servers that are checked at a time, in a few milliseconds, before other work has its turn."""

MAX_STATUS_REFRESHES = 50
"""Servers that get a pass in one second only because their busy slots, queued requests or download
changed, in turns: each is a write, and a thousand busy servers change all the time."""

CRD_SECONDS = 2.0
"""Between two tries to list LlamaServers before their CRD exists."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """All that runs beside kopf, and what brings a server's next pass."""

    cluster: Cluster
    store: Store
    states: States
    reconciler: Reconciler
    poller: DemandPoller
    queue: WorkQueue
    lease: OperatorLease
    metrics: Metrics
    monotonic: Callable[[], float]
    gateways: GatewayRuntime
    downloads: ProgressPoller
    logs: StartLogReader
    stale: FairLane = field(default_factory=FairLane)
    """Servers whose status shows old numbers."""

    def __post_init__(self) -> None:
        self.reconciler.enqueue = self.queue.add
        self.reconciler.steps.on_corrected = self.metrics.count_correction
        self.reconciler.steps.on_conditions = self._on_conditions
        isolated = (self.reconciler, self.reconciler.budgets, self.poller, self.store)
        for part in (*isolated, self.downloads, self.logs):
            part.isolation.on_error = self.metrics.count_suppressed_error

    def on_server_event(self, event: WatchEvent) -> None:
        """kopf's watch shows a server: a user's change is worked on at once."""
        with self.store.isolation("LlamaServer of an event"):
            self._add(self.store.apply_event(event))

    def enqueue(self, keys: Iterable[Key]) -> None:
        """The children or pods of these servers changed."""
        for key in keys:
            self.queue.add_debounced(key)

    async def run(
        self, namespaces: Sequence[str] = (), idle_timeout: float = MAX_IDLE_TIMEOUT
    ) -> None:
        """Run in these namespaces, or (none) in all, until a signal ends kopf.

        `idle_timeout`: seconds without an event after which kopf renews a watch. Raises an
        ExceptionGroup of whatever ended one of the parts: LeadershipLostError, ApiError.
        """
        await self.list_servers(namespaces)
        await self.gateways.list_gateways(namespaces)
        async with asyncio.TaskGroup() as group:
            running = informers(self.cluster, self.store, namespaces, self.enqueue)
            parts = (
                self.lease.hold(),
                run_informers(running),
                run_queue(self.queue, running, self.work),
                periodically(POLL_SECONDS, self.poll_demand),
                periodically(PROGRESS_SECONDS, self.poll_downloads),
                periodically(LOG_SECONDS, self.read_logs),
                periodically(LIST_SECONDS, lambda: self.resync(namespaces)),
                resync_periodically(self.store, self.queue),
                *self.gateways.parts(namespaces),
            )
            tasks = [group.create_task(part) for part in parts]
            # Last: when kopf ends it waits seconds for tasks that are younger than its own, and the
            # next leader waits with it. All others have started theirs before it does.
            await group.create_task(self._watch(namespaces, idle_timeout))
            for task in tasks:
                task.cancel()

    async def work(self, key: Key) -> None:
        """Make one pass over a server and count it.

        Raises what `Reconciler.reconcile` does, and RetryError while another operator may lead.
        """
        try:
            reconcile = self.reconciler.reconcile
            await run_pass(reconcile, key, self.lease, self.metrics, self.monotonic)
        finally:
            self._count_decision(key)

    async def poll_demand(self) -> None:
        """Poll the balancers; enqueue the servers for which the reports make a difference."""
        updated = set[Key]()

        def on_update(key: Key, _: TrackedDemand) -> None:
            updated.add(key)
            if self.reconciler.needs_scaling(key):
                self._enqueue_unless_failing(key)

        tracked = [(key, state.demand) for key, state, _ in self.states.servers()]
        await self.poller.poll(tracked, on_update)
        self.gateways.enqueue(self.reconciler.budgets.update())
        for keys in _slices([key for key, *_ in tracked]):
            for key in keys:
                with self.reconciler.isolation(key):
                    if self.reconciler.is_due(key, scaling=key not in updated):
                        self._enqueue_unless_failing(key)
                    if self.reconciler.is_status_stale(key) and not self.queue.is_failing(key):
                        self.stale.add(key)
            # However many servers there are, their passes go on meanwhile.
            await asyncio.sleep(0)
        for _ in range(MAX_STATUS_REFRESHES):
            if stale := self.stale.take():
                self.queue.add_debounced(stale)

    async def poll_downloads(self) -> None:
        """Poll the pods that download models. `poll_demand` finds the statuses that are old then,
        and limits how many are written."""
        await self.downloads.poll((key, state.download) for key, state, _ in self.states.servers())

    async def read_logs(self) -> None:
        """Read the start of the logs of replicas with accelerators that have just started."""
        tracked = ((key, state.logs) for key, state, _ in self.states.servers())
        await self.logs.poll(tracked, self._enqueue_unless_failing)

    async def list_servers(self, namespaces: Sequence[str] = ()) -> None:
        """List all servers once their CRD exists: kopf would not notice its creation later.

        One namespace that can be listed is enough: the others may have been deleted, or their
        administrators may have deleted the operator's permissions there.
        """
        while True:
            listed = False
            for namespace in namespaces or (None,):
                try:
                    await self._list(namespace)
                except ApiError as error:
                    log.warning("cannot list LlamaServers yet: %s", error)
                else:
                    listed = True
            if listed:
                return
            await asyncio.sleep(CRD_SECONDS)

    async def resync(self, namespaces: Sequence[str] = ()) -> None:
        """List all servers again: kopf's watch may have lost an event, and never shows what was
        deleted while it was broken. Raises NotFound where their CRD was deleted."""
        for namespace in namespaces or (None,):
            try:
                await self._list(namespace)
            except NotFound:
                raise
            except ApiError as error:
                log.warning("resync: %s", error)

    async def _list(self, namespace: str | None) -> None:
        _, changed = await list_into(self.store, self.cluster, LLAMA_SERVERS, namespace)
        self._add(changed)

    def _enqueue_unless_failing(self, key: Key) -> None:
        # Demand is no reason to repeat what has just failed, unless nothing is left to be tried.
        if not self.queue.is_failing(key) or self.reconciler.no_longer_desired(key):
            self.queue.add(key)

    def _add(self, keys: Iterable[Key]) -> None:
        changed = list(keys)
        enqueue_changed(self.queue, self.store, changed)
        self.gateways.on_servers(changed)

    def _on_conditions(self, key: Key, conditions: Sequence[Manifest]) -> None:
        self.metrics.set_conditions(LLAMA_SERVERS.kind, key, conditions)
        # No watch event follows the operator's own write.
        self.gateways.on_servers([key])

    def _count_decision(self, key: Key) -> None:
        state = self.states.find(key)
        if state is None or state.server is None:
            self.metrics.forget(key)
            return
        snapshot = self.reconciler.scaling_snapshot(key)
        self.metrics.count_decision(key, state.counted, snapshot)
        state.counted = snapshot

    async def _watch(self, namespaces: Sequence[str], idle_timeout: float) -> None:
        await kopf.operator(
            registry=kopf_watch.registry(self.on_server_event, self.lease.on_watched_renewal),
            settings=kopf_watch.settings(idle_timeout),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
            # Without one kopf looks up the user's name, and a pod's user has none. It is only for
            # peering, which is off; kopf exports no name for its type.
            identity=cast("Any", "slotkeeper"),
        )


def _slices(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[start : start + SLICE] for start in range(0, len(keys), SLICE))
