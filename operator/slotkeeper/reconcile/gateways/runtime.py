"""Runs the passes over gateways: work queue, watches, resync, and changes of servers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slotkeeper.kube.cluster import ApiError, Cluster
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
    list_into,
    run_informers,
)
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import WorkQueue

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Between two tries to list LlamaGateways at the start."""

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

    async def list_gateways(self, namespaces: Sequence[str]) -> None:
        """List all gateways, and apply their budgets, before the first pass over a server.

        Without their CRD, or the right to list them, there are none.
        """
        for namespace in namespaces or (None,):
            while True:
                try:
                    listed = await list_into(self.store, self.cluster, LLAMA_GATEWAYS, namespace)
                except ApiError as error:
                    log.warning("cannot list LlamaGateways: %s", error)
                    if error.status in {403, 404}:
                        break
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self.on_gateways(listed[1])
                    break

    def parts(self, namespaces: Sequence[str]) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs in these namespaces, or (none) in all, until cancelled."""
        cluster, store = self.cluster, self.store
        own = informers(cluster, store, namespaces, self.on_gateways, [LLAMA_GATEWAYS])
        children = informers(cluster, store, namespaces, self.enqueue, GATEWAYS_INFORMED)
        running = [*own, *children]
        return (
            run_informers(running),
            run_queue(self.queue, running, self.work),
            periodically(CHECK_SECONDS, self.check_due),
            resync_periodically(self.store, self.queue),
        )

    async def work(self, key: Key) -> None:
        """Make one pass over a gateway and count it. Raises as `run_pass`."""
        await run_pass(self.reconciler.reconcile, key, self.lease, self.metrics, self.monotonic)

    def on_gateways(self, keys: Iterable[Key]) -> None:
        """These gateways themselves changed."""
        changed = list(keys)
        for key in changed:
            with self.isolation(key):
                self.reconciler.limit(key)
        enqueue_changed(self.queue, self.store, changed)

    def on_servers(self, keys: Iterable[Key]) -> None:
        """These servers changed, or were deleted: enqueue the gateways that select or selected
        them."""
        for key in keys:
            with self.isolation(key):
                if changed := self.catalog.refresh(key):
                    selecting = self._selecting(key.namespace, changed)
                    if changed[0].labels != changed[-1].labels or len(changed) == 1:
                        # At once: a new server must not start replicas beside the budget.
                        for gateway in selecting:
                            self.reconciler.limit(gateway)
                    self.enqueue(selecting)

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
