"""What exists in the cluster for one server, from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection, names, prefetch
from slotkeeper.desired.model_container import downloads_files
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS, STATEFUL_SETS
from slotkeeper.kube.objects import Child, Key
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.observe import accounts
from slotkeeper.reconcile.observe.memory import MemoryFacts
from slotkeeper.reconcile.observe.own_pods import own_pods, workloads
from slotkeeper.reconcile.observe.ownership import belongs_to
from slotkeeper.reconcile.observe.pod_templates import of_current_template, template_hash
from slotkeeper.reconcile.observe.pods import download_command, is_unschedulable
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.watch.store import Store


@dataclass(frozen=True)
class Observed:
    """The objects of one server."""

    children: Mapping[Child, Manifest]
    """All objects with the server's label or a child's name, whatever their owner."""
    replica_pods: list[Manifest]
    balancer_pods: list[Manifest]
    worker_pods: list[Manifest]
    """Pods of the server's Deployments and StatefulSets, without those that are terminating."""
    replicas: Manifest | None
    """The Deployment of the replicas, or the StatefulSet of replicas with workers."""
    balancers: Manifest | None
    """The Deployment of the balancers."""
    workers: Sequence[Manifest]
    """The StatefulSets of workers, one for each index in a replica."""
    replica_sets: Sequence[Manifest]
    """All ReplicaSets with the server's label, whatever their owner."""
    prefetch_job: Manifest | None
    """The Job that downloads the files of the current spec before a replica is desired."""
    prefetch_pods: list[Manifest]
    """Its pods, one for each try."""
    inspection_job: Manifest | None
    """The Job that reads the headers of the files of the current spec."""
    inspection_pods: list[Manifest]
    """Its pods, one for each try."""
    unlabelled: Mapping[Child, Manifest]
    """The children that lack the server's label, so that no watch shows them."""
    deleted_by_others: Sequence[Child] = ()
    """Children that were deleted, or lost the server's label, and not by the operator."""
    has_other_files: bool = False
    """Whether the template of the replicas, of a server with `auto`, has other files of the model
    than the spec."""
    terminating_pods: Sequence[Manifest] = ()
    """Pods of replicas and workers that are terminating, where another one has no node."""
    compute_arches: Sequence[str] | None = None
    """Compute capabilities of the cluster's GPUs; None unless a replica waits for one."""
    too_small_memory: str = ""
    """Why no node has `gpu.minMemory`; empty unless a replica waits for one."""
    chosen_for: Sequence[str] | None = None
    """Compute capabilities that `auto` of gpu.computeArch was chosen for; None without it."""
    inspection_rejected: str = ""
    """Why the API server rejected that Job, while it is not tried again."""
    inspections_full: bool = False
    """Whether other servers have as many such Jobs as may run at the same time."""
    memory: MemoryFacts | None = None
    """What is known of the memory of its GPUs; None without GPUs."""
    unresponsive: Sequence[str] = ()
    """Replicas (HOST:PORT) that their balancer reports as unresponsive."""
    progress: ProgressReport | None = None
    """The download of the pod that will have the model first; None if none runs, or reports."""

    @property
    def unchosen(self) -> Problem | None:
        """Why replicas cannot be desired yet: there is no choice for `auto`."""
        return self.memory.unchosen if self.memory else None

    @property
    def awaits_choice(self) -> bool:
        """Whether replicas have to wait for a choice for `auto`, or for its record in the
        status."""
        return self.unchosen is not None or not (self.memory is None or self.memory.is_recorded)

    @property
    def current(self) -> int | None:
        """The replica count that the Deployment specifies; None without one."""
        return None if self.replicas is None else int(self.replicas["spec"].get("replicas", 1))


@dataclass(frozen=True)
class Snapshot:
    """A valid server and what exists for it, read once at the start of a pass."""

    raw: Manifest
    """The server as it was read."""
    server: LlamaServer
    observed: Observed

    @property
    def is_reported(self) -> bool:
        """Whether a status was written before: the server is not new."""
        return "observedGeneration" in self.server.status


@dataclass(frozen=True)
class Invalid:
    """A server whose spec breaks a rule."""

    raw: Manifest
    message: str
    """The fields, and what is allowed."""
    reason: Reason = Reason.INVALID_SPEC


def observe(store: Store, server: LlamaServer, unlabelled: Mapping[Child, Manifest]) -> Observed:
    """Read the store; `unlabelled` are the children that it cannot have."""
    key = Key(server.namespace, server.name)
    children = {**unlabelled, **store.children(key)}
    replica_sets = store.replica_sets(key)
    pods = own_pods(store, server, children, workloads(server), replica_sets)
    own = {one: item for one, item in children.items() if belongs_to(item, server)}
    workers = range(server.spec.pods_per_replica - 1)
    replicas = own.get(_replicas_of(server))
    terminating: list[Manifest] = []
    if any(map(is_unschedulable, [*pods[Component.REPLICA], *pods[Component.WORKER]])):
        found = own_pods(store, server, children, workloads(server), replica_sets, terminating=True)
        terminating = [*found[Component.REPLICA], *found[Component.WORKER]]
    return Observed(
        children=children,
        replica_pods=pods[Component.REPLICA],
        balancer_pods=pods[Component.BALANCER],
        worker_pods=pods[Component.WORKER],
        replicas=replicas,
        balancers=own.get((DEPLOYMENTS, names.balancer(server))),
        workers=[
            own[one]
            for number in workers
            if (one := (STATEFUL_SETS, names.worker(server, number))) in own
        ],
        replica_sets=replica_sets,
        prefetch_job=own.get((JOBS, prefetch.name(server))),
        prefetch_pods=pods[Component.PREFETCH],
        inspection_job=own.get((JOBS, inspection.name(server))),
        inspection_pods=pods[Component.INSPECTION],
        unlabelled=unlabelled,
        deleted_by_others=store.deleted_by_others(key, server.uid),
        has_other_files=_has_other_files(server, replicas),
        terminating_pods=terminating,
    )


def account_uid(server: LlamaServer, observed: Observed) -> str | None:
    """The uid of the balancers' ServiceAccount; None where neither it nor its pods exist yet."""
    name = names.balancer(server)
    return accounts.account_uid(name, observed.children, observed.balancers)


def updated_pods(observed: Observed) -> list[Manifest]:
    """The pods of replicas that were created from the current templates. Workers come first: a
    leader waits for them, so that their problem is the cause."""
    sets = observed.replica_sets
    workers = (of_current_template(observed.worker_pods, each, sets) for each in observed.workers)
    leaders = of_current_template(observed.replica_pods, observed.replicas, sets)
    return [*chain.from_iterable(workers), *leaders]


def current_balancers(observed: Observed) -> list[Manifest]:
    """The balancers' pods of the Deployment's current template."""
    if observed.balancers is None:
        return []
    current = template_hash(observed.balancers["spec"]["template"])
    return [pod for pod in observed.balancer_pods if template_hash(pod) == current]


def _has_other_files(server: LlamaServer, replicas: Manifest | None) -> bool:
    if replicas is None or not server.spec.automatic:
        return False
    command = download_command(replicas["spec"]["template"]) or []
    return not downloads_files(command, server.spec)


def _replicas_of(server: LlamaServer) -> Child:
    if server.spec.workers:
        return STATEFUL_SETS, names.leaders(server)
    return DEPLOYMENTS, names.replicas(server)
