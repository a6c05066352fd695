"""What the operator remembers of each server between two passes: one record a server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.objects import Child, Key
from slotkeeper.reconcile.decide.replicas import Scaling, policy_of
from slotkeeper.reconcile.demand.tracker import TrackedDemand
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.report.events import EventContent
from slotkeeper.reconcile.report.scaling_snapshot import ScalingSnapshot
from slotkeeper.reconcile.report.serving import PodReadiness, Serving
from slotkeeper.reconcile.write.conflicts import FieldConflicts
from slotkeeper.scaling.policy import Policy


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


@dataclass
class ServerState:
    """One server's record. Small, since there may be thousands; lost with the process."""

    demand: TrackedDemand
    server: LlamaServer | None = None
    """As of the last pass, with the status then; None before it, and for an invalid spec."""
    current: int | None = None
    """Replicas that the Deployment specifies."""
    conflicts: FieldConflicts = field(default_factory=FieldConflicts)
    unlabelled: set[Child] = field(default_factory=set)
    """Objects with a child's name and without the server's label: no watch shows them."""
    attempted: bool = False
    """Whether a pass has carried out its plan, with the replicas that demand requires, since the
    process started."""
    rejection: Rejection | None = None
    """Why the API server rejected the last plan. Its message stays while the same is rejected."""
    name_conflict: Problem | None = None
    """The object that has a child's name, as of the last pass."""
    pods: PodReadiness | None = None
    """Readiness of the pods, as of the last pass."""
    serving: Serving = field(default_factory=Serving)
    """What the last status shows of the balancers' reports."""
    due_at: float | None = None
    """When a pass is due though nothing changed."""
    unreported: Scaling | None = None
    """A change of replicas that was written and is not in the status yet."""
    events: list[EventContent] = field(default_factory=list)
    """Events that were caused by writes and are not created yet."""
    counted: ScalingSnapshot | None = None
    """The decision that the metrics counted last."""
    failures: int = 0
    """Failed passes in a row."""
    unresponsive: tuple[str, ...] = ()
    """Unresponsive replicas in the last written status, as reported by a balancer."""
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
    def unapplied(self) -> Problem | None:
        """Why the server's children cannot be written as desired; None where they can."""
        return self.rejection.problem if self.rejection else self.name_conflict


class States:
    """The records of all servers. `now` is the clock of all times in them, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._states: dict[Key, ServerState] = {}

    def __getitem__(self, key: Key) -> ServerState:
        """The server's record, a new one if there is none."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = ServerState(TrackedDemand(since=self._now()))
        return state

    def find(self, key: Key) -> ServerState | None:
        """The server's record; None where nothing is remembered."""
        return self._states.get(key)

    def servers(self) -> list[tuple[Key, ServerState, LlamaServer]]:
        """The records of valid servers. A copy: metrics are scraped from another thread."""
        return [
            (key, state, state.server) for key, state in list(self._states.items()) if state.server
        ]

    def forget(self, key: Key) -> None:
        """Drop everything but the failures, which end with the next success."""
        state = self._states.pop(key, None)
        if state and state.failures:
            self[key].failures = state.failures

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
        if state.server is None:
            del self._states[key]


def _constant_words(message: str) -> list[str]:
    # A word with a digit may be a time, a count or a request id.
    return [word for word in message.split() if not any(map(str.isdigit, word))]
