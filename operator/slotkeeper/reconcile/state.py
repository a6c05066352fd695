"""What the operator remembers of each resource between two passes: one record a resource."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from typing_extensions import override

from slotkeeper.api.resource import Resource
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.objects import Child, Key
from slotkeeper.reconcile.accelerators.tracker import TrackedLogs
from slotkeeper.reconcile.decide.replicas import Scaling, policy_of
from slotkeeper.reconcile.demand.tracker import TrackedDemand
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.downloads.tracker import TrackedDownload
from slotkeeper.reconcile.observe.prefetch import Phase
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.events import EventContent
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot
from slotkeeper.reconcile.report.serving import PodReadiness, Serving
from slotkeeper.reconcile.write.conflicts import FieldConflicts
from slotkeeper.scaling.policy import Policy

State = TypeVar("State", bound="ResourceState")


@dataclass(frozen=True)
class Rejection:
    """Why the API server rejected the plan for a spec."""

    problem: Problem
    generation: int

    def is_same(self, other: "Rejection") -> bool:
        """Whether the messages differ by no more than times, counts or ids, for the same spec."""
        return self.generation == other.generation and (
            _constant_words(self.problem.message) == _constant_words(other.problem.message)
        )


@dataclass(frozen=True)
class InspectionRejection:
    """Why the API server rejected a Job that reads headers. It is tried again after a change of
    the spec, and after some time: a quota may have space then."""

    message: str
    generation: int
    tries: int
    """With this spec, in a row."""
    retry_at: float

    def holds(self, generation: int, now: float) -> bool:
        """Whether it is not tried again yet."""
        return self.generation == generation and now < self.retry_at


@dataclass
class ResourceState:
    """One resource's record: what passes over all kinds of resources remember."""

    conflicts: FieldConflicts = field(default_factory=FieldConflicts)
    unlabelled: set[Child] = field(default_factory=set)
    """Objects with a child's name and without the owner's label: no watch shows them."""
    rejection: Rejection | None = None
    """Why the API server rejected the last plan. Its message stays while the same is rejected."""
    name_conflict: Problem | None = None
    """The object that has a child's name, as of the last pass."""
    due_at: float | None = None
    """When a pass is due though nothing changed."""
    events: list[EventContent] = field(default_factory=list)
    """Events that were caused by writes and are not created yet."""
    failures: int = 0
    """Failed passes in a row."""

    @property
    def resource(self) -> Resource | None:
        """The resource as of the last pass; None before it, and for an invalid spec."""
        raise NotImplementedError

    @property
    def unapplied(self) -> Problem | None:
        """Why the children cannot be written as desired; None where they can."""
        return self.rejection.problem if self.rejection else self.name_conflict

    def is_due(self, now: float) -> bool:
        """Whether a pass is due because of the time."""
        return (self.due_at is not None and self.due_at <= now) or self.conflicts.is_due(now)

    def record_rejection(self, rejected: Problem | None, generation: int, *, changed: bool) -> bool:
        """Remember whether the API server rejected a plan for a spec of this generation.

        Returns whether the next pass is due at once; `changed`: something else requires it.
        """
        before = self.rejection
        now = Rejection(rejected, generation) if rejected else None
        self.rejection = before if before and now and now.is_same(before) else now
        if now and before and before.generation == generation:
            # Only the back-off brings the next pass, though a new message may have been written to
            # the Role: it may be another one at each try.
            return False
        return changed or now != before


@dataclass
class ServerState(ResourceState):
    """One server's record. Small, since there may be thousands; lost with the process."""

    demand: TrackedDemand = field(kw_only=True)
    download: TrackedDownload = field(default_factory=TrackedDownload)
    logs: TrackedLogs = field(default_factory=TrackedLogs)
    shown_progress: ProgressReport | None = None
    """The progress of a download in the last status."""
    server: LlamaServer | None = None
    """As of the last pass, with the status then; None before it, and for an invalid spec."""
    current: int | None = None
    """Replicas that the Deployment specifies."""
    attempted: bool = False
    """Whether a pass has carried out its plan, with the replicas that demand requires, since the
    process started."""
    unreported: Scaling | None = None
    """A change of replicas that was written and is not in the status yet."""
    counted: ScalingSnapshot | None = None
    """The decision that the metrics counted last."""
    awaits_choice: bool = False
    """Whether no replica can be desired before there is a choice for `auto`."""
    inspection: InspectionRejection | None = None
    """Why the Job that reads the headers of the model's files does not exist; None where it does,
    or was not rejected."""
    inspects: bool = False
    """Whether that Job counts as one of those that may run at the same time, as of the last
    pass."""
    awaits_inspection: bool = False
    """Whether it may not be created yet: other servers have too many."""
    prefetch: Phase | None = None
    """Phase of the prefetch Job, as of the last pass; None without one."""
    pods: PodReadiness | None = None
    """Readiness of the pods, as of the last pass."""
    serving: Serving = field(default_factory=Serving)
    """What the last status shows of the balancers' reports."""
    builds: tuple[str, ...] | None = None
    """Builds of llama-server, as a balancer reported them last; None before the first report."""
    unresponsive: tuple[str, ...] = ()
    """Unresponsive replicas in the last written status, as reported by a balancer."""
    without_speculation: tuple[str, ...] = ()
    """Likewise, replicas that do not decode speculatively."""
    exceeds_budget: str = ""
    """Why no replica fits into the budget of its gateway, as the last pass applied it."""
    _policy: tuple[int, Policy | None] | None = None
    """The last scaling policy, and the generation of its spec."""

    def policy_at(self, scheduled: datetime) -> Policy | None:
        """The scaling policy at this time; None where demand does not set the number of replicas.

        Computed only when the spec has changed or a schedule has started: the operator needs it
        every second, and a search in sixteen schedules takes milliseconds.
        """
        if self.server is None:
            return None
        if self._policy is not None:
            generation, policy = self._policy
            holds = policy is None or policy.active.holds_at(scheduled)
            if generation == self.server.generation and holds:
                return policy
        policy = policy_of(self.server, scheduled)
        self._policy = (self.server.generation, policy)
        return policy

    @property
    @override
    def resource(self) -> Resource | None:
        return self.server


class Records(Generic[State]):
    """The records of all resources of one kind; `new` returns the record of a new one."""

    def __init__(self, new: Callable[[], State]) -> None:
        self._new = new
        self._states: dict[Key, State] = {}

    def __getitem__(self, key: Key) -> State:
        """The resource's record, a new one if there is none."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._new()
        return state

    def find(self, key: Key) -> State | None:
        """The resource's record; None where nothing is remembered."""
        return self._states.get(key)

    def records(self) -> list[tuple[Key, State]]:
        """All records. A copy: metrics are scraped from another thread."""
        return list(self._states.items())

    def forget(self, key: Key) -> None:
        """Drop everything but the failures, which end with the next success."""
        state = self._states.pop(key, None)
        if state and state.failures:
            self[key].failures = state.failures

    def forget_previous(self, key: Key, uid: str) -> None:
        """Drop the record of another resource of this name: it was deleted and created again
        between two passes."""
        state = self._states.get(key)
        if state and state.resource and state.resource.uid != uid:
            self.forget(key)

    # The work queue's back-off.

    def failures(self, key: Key) -> int:
        """Failed passes in a row."""
        state = self._states.get(key)
        return state.failures if state else 0

    def add_failure(self, key: Key) -> int:
        """Count a failed pass; how many there are in a row."""
        state = self[key]
        state.failures += 1
        return state.failures

    def reset_failures(self, key: Key) -> None:
        """The last pass succeeded."""
        if (state := self._states.get(key)) is None:
            return
        state.failures = 0
        if state.resource is None:
            del self._states[key]


class States(Records[ServerState]):
    """The records of all servers. `now` is the clock of all times in them, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(lambda: ServerState(demand=TrackedDemand(since=now())))

    def servers(self) -> list[tuple[Key, ServerState, LlamaServer]]:
        """The records of valid servers."""
        return [(key, state, state.server) for key, state in self.records() if state.server]


def _constant_words(message: str) -> list[str]:
    # A word with a digit may be a time, a count or a request id.
    return [word for word in message.split() if not any(map(str.isdigit, word))]
