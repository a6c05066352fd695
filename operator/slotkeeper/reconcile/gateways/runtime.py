"""Runs the passes over gateways: work queue, watches, resync, and changes of servers."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from slotkeeper.kube.cluster import Cluster
from slotkeeper.kube.kinds import LLAMA_GATEWAYS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.gateways.catalog import ModelCatalog
from slotkeeper.reconcile.gateways.models import ServedModel
from slotkeeper.reconcile.gateways.reconciler import GatewayReconciler, GatewayState
from slotkeeper.reconcile.isolation import Isolation
from slotkeeper.reconcile.leader_election import OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.passes import (
    enqueue_changed,
    periodically,
    resync_periodically,
    run_pass,
    run_queue,
)
from slotkeeper.reconcile.state import Records
from slotkeeper.reconcile.watch.informers import (
    GATEWAYS_INFORMED,
    informers,
    run_informers,
)
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import WorkQueue

CHECK_SECONDS = 1.0
"""Between two checks which gateways need a pass because of the time."""


@dataclass(frozen=True)
class GatewayRuntime:
    """All that brings a gateway's next pass. `store` is that of the gateways."""

    cluster: Cluster
    store: Store
    states: Records[GatewayState]
    catalog: ModelCatalog
    reconciler: GatewayReconciler
    queue: WorkQueue
    lease: OperatorLease
    metrics: Metrics
    monotonic: Callable[[], float]
    isolation: Isolation = field(default_factory=lambda: Isolation("models of gateways"))

    def __post_init__(self) -> None:
        steps = self.reconciler.steps
        self.reconciler.enqueue = self.queue.add
        steps.on_corrected = self.metrics.count_correction
        steps.on_conditions = lambda key, conditions: self.metrics.set_conditions(
            LLAMA_GATEWAYS.kind, key, conditions
        )
        for isolation in (self.isolation, self.store.isolation):
            isolation.on_error = self.metrics.count_suppressed_error

    async def run(self, namespaces: Sequence[str]) -> None:
        """Run in these namespaces, or (none) in all, until cancelled."""
        cluster, store = self.cluster, self.store
        own = informers(cluster, store, namespaces, self.on_gateways, [LLAMA_GATEWAYS])
        children = informers(cluster, store, namespaces, self.enqueue, GATEWAYS_INFORMED)
        running = [*own, *children]
        async with asyncio.TaskGroup() as group:
            group.create_task(run_informers(running))
            group.create_task(run_queue(self.queue, running, self.work))
            group.create_task(periodically(CHECK_SECONDS, self.check_due))
            group.create_task(resync_periodically(self.store, self.queue))

    async def work(self, key: Key) -> None:
        """Make one pass over a gateway and count it. Raises as `run_pass`."""
        await run_pass(self.reconciler.reconcile, key, self.lease, self.metrics, self.monotonic)

    def on_gateways(self, keys: Iterable[Key]) -> None:
        """These gateways themselves changed."""
        enqueue_changed(self.queue, self.store, keys)

    def on_servers(self, keys: Iterable[Key]) -> None:
        """These servers changed, or were deleted: enqueue the gateways that select or selected
        them."""
        for key in keys:
            with self.isolation(key):
                if changed := self.catalog.refresh(key):
                    self.enqueue(self._selecting(key.namespace, changed))

    def enqueue(self, keys: Iterable[Key]) -> None:
        """The children, pods or models of these gateways changed."""
        for key in keys:
            self.queue.add_debounced(key)

    async def check_due(self) -> None:
        """Enqueue the gateways that need a pass because of the time."""
        for key, _ in self.states.records():
            if self.reconciler.is_due(key) and not self.queue.is_failing(key):
                self.queue.add(key)

    def _selecting(self, namespace: str, models: Iterable[ServedModel]) -> list[Key]:
        """The gateways that select one of these models of a namespace."""
        labels = [model.labels for model in models]
        return [
            key
            for key, state in self.states.records()
            if key.namespace == namespace
            and state.gateway
            and any(map(state.gateway.spec.server_selector.matches, labels))
        ]
