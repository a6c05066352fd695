"""The operator without kopf: its runtime on a cluster, with balancers and clock in hand."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from llamaservers import IMAGES, raw_server
from slotkeeper.api.demand_report import DemandReport
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Cluster, Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, STATEFUL_SETS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand.poller import DemandPoller
from slotkeeper.reconcile.leader_election import LeaseRef, OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.runtime import Runtime
from slotkeeper.reconcile.state import ServerState, States
from slotkeeper.reconcile.watch.informers import list_into
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import DEBOUNCE_SECONDS, WorkQueue

MAX_PASSES = 100
"""More than any test needs before nothing is due."""

KEY = Key("default", "chat")
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


@dataclass
class Time:
    """Moves only by being added to."""

    passed: float = 0.0
    set_by: float = 0.0
    """How far somebody has set the wall's clock forward, or back."""

    @property
    def clock(self) -> Clock:
        return Clock(
            lambda: self.passed, lambda: START + timedelta(seconds=self.passed + self.set_by)
        )


@dataclass
class Balancers:
    """The report of each balancer, by host; one that is not in here is unreachable."""

    says: dict[str, Any] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    """Those that respond when their event is set."""
    polls: int = 0

    async def fetch(self, address: str, *, keep_alive: bool) -> DemandReport:  # noqa: ARG002
        self.polls += 1
        host, _, _ = address.rpartition(":")
        if host in self.slow:
            await self.slow[host].wait()
        if host not in self.says:
            raise ConnectionRefusedError(address)
        return DemandReport.from_json(json.dumps(self.says[host]))


def numbers(*, busy: int = 0, queued: int = 0, total: int = 4, oldest: float = 0.0) -> Any:
    """A balancer's report."""
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
class Operator:
    """One life of the operator's process: its real runtime, with its clock and watches in hand."""

    cluster: Cluster
    time: Time = field(default_factory=Time)
    balancers: Balancers = field(default_factory=Balancers)
    store: Store = field(default_factory=Store)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        clock = self.time.clock
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        """What is scheduled, and when."""
        self.states = States(clock.monotonic)
        self.queue = WorkQueue(self.states, Random(1), later=self._later)
        self.poller = DemandPoller(self.balancers.fetch, clock.monotonic)
        self.reconciler = Reconciler(
            self.cluster, self.store, self.states, self.poller, IMAGES, clock
        )
        self.lease = OperatorLease(self.cluster, LeaseRef("system", "a"), clock)
        self.metrics = Metrics(self.registry, lambda: len(self.queue))
        self.metrics.register(self.reconciler.conflicts, self.reconciler.scaling_snapshots)
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
        )
        self._versions: dict[Kind, str] = {}
        """Up to which version the watches have shown each kind."""

    @property
    def state(self) -> ServerState:
        """What is remembered of the server KEY."""
        return self.states[KEY]

    async def reconcile(self, key: Key = KEY) -> None:
        """Let the watches show everything, then work on this server until nothing is due.

        Raises what its last pass raised.
        """
        await self.deliver()
        await self.act(key)

    async def act(self, key: Key = KEY) -> None:
        """Work on this server until nothing is due, by what the watches have shown so far.

        Raises what its last pass raised.
        """
        self.queue.add(key)
        if error := await self._work_on_all():
            raise error

    async def deliver(self, shows: Callable[[WatchEvent], bool] = lambda _: True) -> set[Key]:
        """Let the watches show what is new, except for events that are lost: the servers that
        changed.

        The first time, and always where the cluster is a real one, everything is listed instead.
        """
        changed = set[Key]()
        for kind in (LLAMA_SERVERS, *CHILDREN, PODS):
            found = await self._deliver(kind, shows)
            for key in found:
                (self.queue.add if kind == LLAMA_SERVERS else self.queue.add_debounced)(key)
            changed |= found
        return changed

    def due(self) -> list[Key]:
        """The servers that are due now."""
        self._ring()
        return [*self.queue._due, *self.queue._debounced]

    def lists_anew(self) -> None:
        """The next delivery is a listing, as after a watch that broke or every ten minutes."""
        self._versions.clear()

    async def pass_time(self, seconds: int) -> None:
        """Let seconds pass: in each the balancers are polled, and what is due is worked on."""
        for _ in range(seconds):
            self.time.passed += 1
            await self.runtime.poll_demand()
            await self.deliver()
            await self._work_on_all()

    async def _deliver(self, kind: Kind, shows: Callable[[WatchEvent], bool]) -> set[Key]:
        if not isinstance(self.cluster, FakeCluster) or kind not in self._versions:
            self._versions[kind], changed = await list_into(self.store, self.cluster, kind, None)
            return changed
        changed = set[Key]()
        labels = None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
        async for event in self.cluster.watch(kind, None, labels, self._versions[kind]):
            self._versions[kind] = event.object["metadata"]["resourceVersion"]
            if shows(event):
                changed |= self.store.apply_event(event)
        return changed

    async def _work_on_all(self) -> Exception | None:
        """Work on all that is due, as the runtime's workers do; the error of the last pass."""
        error: Exception | None = None
        for _ in range(MAX_PASSES):
            self._ring()
            key = self.queue.take()
            if key is None:
                return error
            error = None
            try:
                await self.runtime.work(key)
            except Exception as raised:
                self.queue.retry(key)
                error = raised
            else:
                self.queue.succeeded(key)
            finally:
                self.queue.done(key)
        raise AssertionError("it never comes to rest")

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        # Debounced changes are due with the next thing that happens.
        at_once = seconds == DEBOUNCE_SECONDS
        self.alarms.append((self.time.passed + (0 if at_once else seconds), action))

    def _ring(self) -> None:
        due = [action for at, action in self.alarms if at <= self.time.passed]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] > self.time.passed]
        for action in due:
            action()


def stored(cluster: FakeCluster, name: str = "chat", **spec: Any) -> Manifest:
    """A LlamaServer that a user has applied: with one balancer, unless `spec` says more."""
    raw = raw_server(name, **{"balancer": {"replicas": 1}, **spec})
    raw["metadata"]["namespace"] = "default"
    return cluster.put(raw)


def change_spec(cluster: FakeCluster, change: Callable[[Any], None], key: Key = KEY) -> None:
    """A user edits a server's spec."""
    cluster.edit(LLAMA_SERVERS, key.namespace, key.name, lambda raw: change(raw["spec"]))


def server_status(cluster: FakeCluster, name: str = "chat") -> Any:
    """A server's status as it is stored."""
    return cluster.named(LLAMA_SERVERS)[name].get("status", {})


def condition(cluster: FakeCluster, kind: str, name: str = "chat") -> Any:
    """One condition of a server's."""
    return next(
        found for found in server_status(cluster, name)["conditions"] if found["type"] == kind
    )


def roll_out(cluster: FakeCluster, *, ready: bool = True) -> None:
    """Kubernetes brings each Deployment and StatefulSet to where it should be, with its pods."""
    sets = {**cluster.named(DEPLOYMENTS), **cluster.named(STATEFUL_SETS)}
    for name, deployment in sets.items():
        wanted = deployment["spec"]["replicas"]
        for pod in list(cluster.named(PODS)):
            if pod.rpartition("-")[0] == name:
                cluster.remove(PODS, "default", pod)
        for index in range(wanted):
            cluster.put(pod_of(deployment, index, ready=ready))
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted if ready else 0,
        }
        cluster.put({**deployment, "status": status})


def pod_of(deployment: Manifest, index: int = 0, *, ready: bool = True) -> Manifest:
    """A pod as the Deployment's template says; its status that of a pod that serves, or starts."""
    template = deployment["spec"]["template"]
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
            "name": f"{deployment['metadata']['name']}-{index}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
        "status": status,
    }
