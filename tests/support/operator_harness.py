"""An operator without kopf: a Reconciler on a cluster, with balancers and clock played."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fake_cluster import FakeCluster
from llamaservers import IMAGES, raw_server
from slotkeeper.api.demand_report import DemandReport
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Cluster, Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, PODS, STATEFUL_SETS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand.tracker import DemandTracker
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.watch.informers import list_into
from slotkeeper.reconcile.watch.store import Store

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
    """What each balancer says at /autoscaling, by host; one that is not in here is unreachable."""

    says: dict[str, Any] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    """Those that answer when they are told to."""
    looks: int = 0

    async def answer(self, address: str, *, keep_alive: bool) -> DemandReport:  # noqa: ARG002
        self.looks += 1
        host, _, _ = address.rpartition(":")
        if host in self.slow:
            await self.slow[host].wait()
        if host not in self.says:
            raise ConnectionRefusedError(address)
        return DemandReport.from_json(json.dumps(self.says[host]))


def numbers(*, busy: int = 0, queued: int = 0, total: int = 4, oldest: float = 0.0) -> Any:
    """What a balancer's /autoscaling says."""
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
    """One life of the operator's process."""

    cluster: Cluster
    time: Time = field(default_factory=Time)
    balancers: Balancers = field(default_factory=Balancers)
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        self.demand = DemandTracker(self.balancers.answer, self.time.clock.monotonic)
        self.reconciler = Reconciler(self.cluster, self.store, self.demand, IMAGES, self.time.clock)
        self._shown: dict[Kind, str] = {}
        """Up to which version the watches have shown each kind."""

    async def reconcile(self, key: Key = KEY) -> None:
        """Reconcile once, when the watches have shown all that there is."""
        await self.deliver()
        await self.reconciler.reconcile(key)

    async def deliver(self, shows: Callable[[WatchEvent], bool] = lambda _: True) -> set[Key]:
        """What is new comes in by the watches, but for events that are lost: the keys it wakes.

        The first time, and always where the cluster is a real one, all is listed instead.
        """
        news = set[Key]()
        for kind in (LLAMA_SERVERS, *CHILDREN, PODS):
            if not isinstance(self.cluster, FakeCluster) or kind not in self._shown:
                self._shown[kind], woken = await list_into(self.store, self.cluster, kind, None)
                news |= woken
                continue
            labels = None if kind == LLAMA_SERVERS else {names.SERVER_LABEL: ""}
            async for event in self.cluster.watch(kind, None, labels, self._shown[kind]):
                self._shown[kind] = event.object["metadata"]["resourceVersion"]
                if shows(event):
                    news |= self.store.apply_event(event)
        return news

    def lists_anew(self) -> None:
        """The next delivery is a listing, as after a watch that broke or every ten minutes."""
        self._shown.clear()

    async def pass_time(self, seconds: int) -> None:
        """Let seconds go by, with a look at the balancers and its consequences in each."""
        for _ in range(seconds):
            self.time.passed += 1
            await self.demand.poll()
            await self.deliver()
            for key in dict.fromkeys(self.reconciler.due() + self.reconciler.status_stale()):
                await self.reconciler.reconcile(key)


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
