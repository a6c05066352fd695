"""The operator without kopf: its real runtime on a cluster, with fake balancers, watches and time.

Further helpers do what users do (`apply_server`, `update_spec`) and what Kubernetes does
(`roll_out`, `set_pod_status`), and read the results (`condition`, `event_messages`).
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from llamaservers import DOWNLOADS, IMAGES, raw_server
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.demand_report import DemandReport
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Cluster, Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import (
    DEPLOYMENTS,
    EVENTS,
    LLAMA_GATEWAYS,
    LLAMA_SERVERS,
    PODS,
    REPLICA_SETS,
    ROLES,
    STATEFUL_SETS,
)
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.accelerators.poller import StartLogReader
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand.poller import DemandPoller
from slotkeeper.reconcile.downloads.poller import PROGRESS_SECONDS, ProgressPoller
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.gateways.catalog import ModelCatalog, Servers
from slotkeeper.reconcile.gateways.reconciler import GatewayReconciler, gateway_records
from slotkeeper.reconcile.gateways.runtime import GatewayRuntime
from slotkeeper.reconcile.leader_election import LeaseRef, OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.runtime import Runtime
from slotkeeper.reconcile.state import ServerState, States
from slotkeeper.reconcile.watch.informers import GATEWAYS_INFORMED, INFORMED, list_into
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import DEBOUNCE_SECONDS, Work, WorkQueue

MAX_PASSES = 100
"""More than any test needs until nothing is due: more are a hot loop."""

KEY = Key("default", "chat")
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)

BALANCER_HOST = "10.0.0.1"
"""Address of the first balancer's pod, as `roll_out` sets it."""


@dataclass
class FakeTime:
    """Time that only tests move."""

    elapsed: float = 0.0
    """Seconds since START."""
    wall_offset: float = 0.0
    """Seconds by which the wall clock was set forward (negative: back)."""

    @property
    def clock(self) -> Clock:
        return Clock(
            lambda: self.elapsed,
            lambda: START + timedelta(seconds=self.elapsed + self.wall_offset),
        )


@dataclass
class FakeBalancers:
    """The demand report of each balancer by host. A balancer without a report is unreachable."""

    reports: dict[str, Any] = field(default_factory=dict)
    delayed: dict[str, asyncio.Event] = field(default_factory=dict)
    """Balancers that respond only after their event is set."""
    polls: int = 0

    async def fetch(self, address: str, *, keep_alive: bool) -> DemandReport:  # noqa: ARG002
        self.polls += 1
        host, _, _ = address.rpartition(":")
        if host in self.delayed:
            await self.delayed[host].wait()
        if host not in self.reports:
            raise ConnectionRefusedError(address)
        return DemandReport.from_json(json.dumps(self.reports[host]))


def demand_report(*, busy: int = 0, queued: int = 0, total: int = 4, oldest: float = 0.0) -> Any:
    """The leader's report: busy slots and queued requests, `oldest` in seconds."""
    demand = busy + queued
    return {
        "leader": True,
        "slots": {"total": total, "busy": busy},
        "queued": queued,
        "oldestQueuedSeconds": oldest,
        "replicas": 1,
        "demand": demand,
        "peakDemand": demand,
    }


@dataclass
class FakeDownloads:
    """The progress of each pod's download by host. A pod without one does not respond."""

    reports: dict[str, Any] = field(default_factory=dict)
    polls: int = 0

    async def fetch(self, address: str) -> ProgressReport:
        self.polls += 1
        host = address.removesuffix(f":{names.PROGRESS_PORT}")
        if host not in self.reports:
            raise ConnectionRefusedError(address)
        return ProgressReport.parse(json.dumps(self.reports[host]).encode())


@dataclass
class Operator:
    """One process of the operator. Another instance on the same cluster is a restart."""

    cluster: Cluster
    time: FakeTime = field(default_factory=FakeTime)
    balancers: FakeBalancers = field(default_factory=FakeBalancers)
    downloads: FakeDownloads = field(default_factory=FakeDownloads)
    store: Store = field(default_factory=Store)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        clock = self.time.clock
        self.timers: list[tuple[float, Callable[[], None]]] = []
        """Scheduled actions, with the time when each is due."""
        self.passes: list[Key] = []
        """The server of every pass, in order."""
        self.states = States(clock.monotonic)
        self.queue = WorkQueue(self.states, Random(1), later=self._later)
        self.poller = DemandPoller(self.balancers.fetch, clock.monotonic)
        self.reconciler = Reconciler(
            self.cluster, self.store, self.states, self.poller, IMAGES, clock
        )
        self.reconciler.downloads = DOWNLOADS
        self.lease = OperatorLease(self.cluster, LeaseRef("system", "a"), clock)
        self.metrics = Metrics(self.registry, lambda: len(self.queue))
        self.metrics.register(
            conflicts=self.reconciler.conflicts,
            snapshots=self.reconciler.scaling_snapshots,
            unreadable=self.store.unreadable,
            leads=self.lease.leads,
            budget_waits=self.reconciler.budgets.waits,
            prefetches=self.reconciler.prefetches,
        )
        self.metrics.register_downloads(self.reconciler.download_samples)
        self.metrics.register_accelerators(self.reconciler.accelerator_problems)
        self.runtime = Runtime(
            self.cluster,
            self.store,
            self.states,
            self.reconciler,
            self.poller,
            self.queue,
            self.lease,
            self.metrics,
            clock.monotonic,
            self._gateways(clock),
            ProgressPoller(self.downloads.fetch, clock.monotonic),
            StartLogReader(self.cluster, clock.monotonic),
        )
        self._watched_versions: dict[tuple[Kind, Kind], str] = {}
        """The version up to which a watch has delivered events, by kind of store and of object."""

    def _gateways(self, clock: Clock) -> GatewayRuntime:
        states = gateway_records()
        self.gateway_store = Store(LLAMA_GATEWAYS)
        self.catalog = ModelCatalog(self.store)
        self.gateway_reconciler = GatewayReconciler(
            self.cluster,
            self.gateway_store,
            states,
            Servers(self.catalog, self.reconciler.budgets),
            IMAGES,
            clock,
        )
        return GatewayRuntime(
            self.cluster,
            self.gateway_store,
            states,
            self.catalog,
            self.gateway_reconciler,
            WorkQueue(states, Random(1), later=self._later, noun="gateway"),
            self.lease,
            self.metrics,
            clock.monotonic,
        )

    @property
    def state(self) -> ServerState:
        """The record of the server KEY."""
        return self.states[KEY]

    async def reconcile(self, key: Key = KEY) -> None:
        """Deliver all watch events, then run passes until nothing is due.

        Raises the error of the last pass.
        """
        await self.deliver_events()
        await self.run_passes(key)

    async def run_passes(self, key: Key = KEY) -> None:
        """Enqueue this server and run passes until nothing is due, without new watch events.

        Raises the error of the last pass.
        """
        self.queue.add(key)
        if error := await self._run_due_passes():
            raise error

    async def deliver_events(
        self, is_delivered: Callable[[WatchEvent], bool] = lambda _: True
    ) -> set[Key]:
        """Deliver new watch events; those that `is_delivered` excludes are lost.

        Returns the servers that changed. The first delivery is a listing, and with a real API
        server every delivery is.
        """
        changed = set[Key]()
        for kind in (LLAMA_SERVERS, *INFORMED):
            found = await self._deliver(self.store, kind, is_delivered)
            for key in found:
                (self.queue.add if kind == LLAMA_SERVERS else self.queue.add_debounced)(key)
            if kind == LLAMA_SERVERS:
                self.runtime.gateways.on_servers(found)
            changed |= found
        return changed

    async def reconcile_gateways(self) -> None:
        """Deliver all watch events, then run passes over gateways until none is due.

        Raises the error of the last pass.
        """
        await self.deliver_events()
        gateways = self.runtime.gateways
        for kind in (LLAMA_GATEWAYS, *GATEWAYS_INFORMED):
            found = await self._deliver(self.gateway_store, kind, lambda _: True)
            (gateways.on_gateways if kind == LLAMA_GATEWAYS else gateways.enqueue)(found)
        if error := await self._run_due_passes(gateways.queue, gateways.work):
            raise error

    def due_keys(self) -> list[Key]:
        """The servers that are due for a pass."""
        self._run_due_timers()
        return [*self.queue._due, *self.queue._debounced]

    def relist(self) -> None:
        """Make the next delivery a listing, as after a broken watch and every ten minutes."""
        self._watched_versions.clear()

    async def run_for(self, seconds: int) -> None:
        """Run for some seconds: in each one poll, watch events, and passes until nothing is due."""
        for _ in range(seconds):
            self.time.elapsed += 1
            if self.time.elapsed % PROGRESS_SECONDS == 0:
                await self.runtime.poll_downloads()
                await self.runtime.read_logs()
            await self.runtime.poll_demand()
            await self.deliver_events()
            await self._run_due_passes()

    async def _deliver(
        self, store: Store, kind: Kind, is_delivered: Callable[[WatchEvent], bool]
    ) -> set[Key]:
        watch = store.kind, kind
        if not isinstance(self.cluster, FakeCluster) or watch not in self._watched_versions:
            version, changed = await list_into(store, self.cluster, kind, None)
            self._watched_versions[watch] = version
            return changed
        changed = set[Key]()
        labels = None if kind == store.kind else {store.label: ""}
        async for event in self.cluster.watch(kind, None, labels, self._watched_versions[watch]):
            self._watched_versions[watch] = event.object["metadata"]["resourceVersion"]
            if is_delivered(event):
                changed |= store.apply_event(event)
        return changed

    async def _run_due_passes(
        self, queue: WorkQueue | None = None, work: Work | None = None
    ) -> Exception | None:
        """Run passes as the runtime's workers do; return the error of the last one."""
        queue = self.queue if queue is None else queue
        work = self.runtime.work if work is None else work
        error: Exception | None = None
        for _ in range(MAX_PASSES):
            self._run_due_timers()
            key = queue.take()
            if key is None:
                return error
            self.passes.append(key)
            error = None
            try:
                await work(key)
            except Exception as raised:
                queue.retry(key)
                error = raised
            else:
                queue.succeeded(key)
            finally:
                queue.done(key)
        raise AssertionError(f"hot loop: a server is still due after {MAX_PASSES} passes")

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        # Nothing else happens during a debounce: its end is due at once.
        delay = 0 if seconds == DEBOUNCE_SECONDS else seconds
        self.timers.append((self.time.elapsed + delay, action))

    def _run_due_timers(self) -> None:
        due = [action for at, action in self.timers if at <= self.time.elapsed]
        self.timers = [timer for timer in self.timers if timer[0] > self.time.elapsed]
        for action in due:
            action()


async def deploy(cluster: FakeCluster, operator: Operator, **spec: Any) -> None:
    """Apply the server KEY and reconcile until it is rolled out and its status reports so.

    The recorded writes are cleared.
    """
    apply_server(cluster, **spec)
    await operator.reconcile()
    roll_out(cluster)
    await operator.reconcile()
    cluster.writes.clear()


# Users.


def apply_server(cluster: FakeCluster, name: str = KEY.name, **spec: Any) -> Manifest:
    """Create a LlamaServer as a user does: with one balancer unless `spec` sets more."""
    raw = raw_server(name, **{"balancer": {"replicas": 1}, **spec})
    raw["metadata"]["namespace"] = KEY.namespace
    return cluster.put(raw)


def update_spec(cluster: FakeCluster, key: Key = KEY, **fields: Any) -> None:
    """Set fields of a server's spec."""
    edit_spec(cluster, lambda spec: spec.update(fields), key)


def edit_spec(cluster: FakeCluster, change: Callable[[Any], None], key: Key = KEY) -> None:
    """Change a server's spec in place."""
    cluster.edit(LLAMA_SERVERS, key.namespace, key.name, lambda raw: change(raw["spec"]))


# Kubernetes.


def roll_out(cluster: FakeCluster, *, ready: bool = True) -> None:
    """Create the pods of all Deployments and StatefulSets, and set their status accordingly."""
    sets = {**cluster.by_name(DEPLOYMENTS), **cluster.by_name(STATEFUL_SETS)}
    for name, owner in sets.items():
        replicas = owner["spec"]["replicas"]
        for pod in list(cluster.by_name(PODS)):
            if pod.rpartition("-")[0] == name:
                cluster.remove(PODS, KEY.namespace, pod)
        if owner["kind"] == DEPLOYMENTS.kind:
            put_replica_set(cluster, owner)
        for index in range(replicas):
            cluster.put(pod_of(owner, index, ready=ready))
        status = {
            "observedGeneration": owner["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas if ready else 0,
        }
        cluster.put({**owner, "status": status})


def put_replica_set(cluster: FakeCluster, deployment: Manifest, failure: str = "") -> None:
    """Create or update the ReplicaSet of a Deployment: one for all of its templates.

    `failure`: it has no pod, and this is why.
    """
    metadata = deployment["metadata"]
    found = cluster.by_name(REPLICA_SETS).get(metadata["name"])
    if found and found["metadata"]["uid"] != _uid_of_replica_set(deployment):
        cluster.remove(REPLICA_SETS, metadata["namespace"], metadata["name"])
    owner = {"controller": True, "kind": "Deployment", "uid": metadata["uid"]}
    replica_set = {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": _uid_of_replica_set(deployment),
            "labels": deployment["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [owner],
        },
        "spec": {key: deployment["spec"][key] for key in ("replicas", "template")},
        "status": {"replicas": deployment["spec"]["replicas"]},
    }
    if failure:
        condition = {"type": "ReplicaFailure", "status": "True", "message": failure}
        replica_set["status"] = {"replicas": 0, "conditions": [condition]}
        observed = {"observedGeneration": metadata["generation"]}
        cluster.put(deployment | {"status": deployment.get("status", {}) | observed})
    cluster.put(replica_set)


def _uid_of_replica_set(deployment: Manifest) -> str:
    return f"replica-set-of-{deployment['metadata']['uid']}"


def pod_of(owner: Manifest, index: int = 0, *, ready: bool = True) -> Manifest:
    """A pod of a Deployment's or StatefulSet's template, ready or starting."""
    template = owner["spec"]["template"]
    is_deployment = owner.get("kind") == DEPLOYMENTS.kind
    uid = _uid_of_replica_set(owner) if is_deployment else owner["metadata"].get("uid", "")
    status: Any = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [
            {"name": container["name"], "image": container["image"], "ready": ready, "state": {}}
            for container in template["spec"]["containers"]
        ],
    }
    if ready:
        status["podIP"] = f"10.0.0.{index + 1}"
        status["initContainerStatuses"] = [
            {
                "name": names.DOWNLOAD_CONTAINER,
                "image": IMAGES.download,
                "ready": True,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
            }
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{index}",
            "namespace": owner["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [{"controller": True, "uid": uid}],
        },
        "spec": template["spec"],
        "status": status,
    }


def set_pod_status(cluster: FakeCluster, status: Manifest, index: int = 0) -> None:
    """Replace a replica's pod by a new one of the Deployment's template, with this status."""
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"], index, ready=False)
    cluster.put(pod | {"status": status})


# Results.


def server_status(cluster: FakeCluster, name: str = KEY.name) -> Any:
    """A server's status as it is stored."""
    return cluster.by_name(LLAMA_SERVERS)[name].get("status", {})


def condition(cluster: FakeCluster, kind: str, name: str = KEY.name) -> Any:
    """The condition of this type of a server."""
    return next(
        found for found in server_status(cluster, name)["conditions"] if found["type"] == kind
    )


def replica_count(cluster: FakeCluster, name: str = KEY.name) -> int:
    """The replicas that a server's Deployment specifies."""
    deployment = cluster.by_name(DEPLOYMENTS)[f"{name}-replicas"]
    return int(deployment["spec"]["replicas"])


def published_blocker(cluster: FakeCluster) -> StartBlocker | None:
    """The start blocker on the balancers' Role."""
    metadata = cluster.by_name(ROLES)["chat-balancer"]["metadata"]
    return StartBlocker.from_annotation(metadata["annotations"].get(START_BLOCKER_ANNOTATION))


def event_messages(cluster: FakeCluster, reason: str) -> list[str]:
    """The messages of all events with this reason."""
    events = cluster.by_name(EVENTS).values()
    return [event["message"] for event in events if event["reason"] == reason]


def event_reasons(cluster: FakeCluster, kind: str = "") -> list[str]:
    """The reasons of all events, or of those of one type (Normal, Warning)."""
    events = cluster.by_name(EVENTS).values()
    return [event["reason"] for event in events if kind in {"", event["type"]}]
