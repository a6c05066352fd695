"""Field conflicts: another writer undoes what the operator writes. Detect them and back off. Pure.

    | what others did to a child           | what happens                                  |
    |--------------------------------------|-----------------------------------------------|
    | changed or deleted it                | corrected at once; an event names the manager |
    | the same again, CONFLICT_AFTER times | Degraded, and corrections back off            |
    | changed it during the write, as a    | the same, from the first time on              |
    | mutating webhook does                |                                               |
    | nothing for QUIET_SECONDS            | forgotten                                     |

A restart of the operator forgets all of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from slotkeeper.api.group import FIELD_MANAGER, KIND
from slotkeeper.api.placement import QUEUE_LABEL
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.backoff import Backoff
from slotkeeper.desired import names
from slotkeeper.kube.objects import Child
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.write.diff import Path, field_path
from slotkeeper.reconcile.write.plan import Plan

CONFLICT_AFTER = 4
"""Corrections of the same fields in a row that make a conflict. One or two may be a user's
experiment."""

RETRY = Backoff(10.0, 300.0)
"""Between two corrections of a child in conflict."""

QUIET_SECONDS = 600.0
"""A conflict is over after this time without a change: longer than the maximum back-off and the
three minutes after which Argo CD syncs again."""

MAX_FIELDS = 3
"""Fields that a message names."""

WEBHOOK = "a mutating webhook"

_VOLUMES = "spec.template.spec.volumes"
_QUEUE = field_path(("spec", "template", "metadata", "labels", QUEUE_LABEL))

_LABELS = {field_path(("metadata", "labels", label)) for label in names.OWNER_LABELS.values()}


@dataclass(frozen=True)
class Drift:
    """What others changed in a child since it was last applied."""

    child: Child
    fields: Sequence[str]
    """Paths; empty where the child was deleted."""
    manager: str = ""
    """The field manager that changed it; empty where it is not known."""

    @classmethod
    def of(cls, of: Child, paths: Iterable[Path], manager: str = "") -> "Drift":
        """The drift of a child in these fields."""
        return cls(of, [field_path(path) for path in paths], manager)

    @property
    def name(self) -> str:
        """Kind and name of the child, as kubectl prints them."""
        kind, name = self.child
        return f"{kind.kind} {name}"

    @property
    def field_list(self) -> str:
        """The first fields, and how many more there are."""
        named = ", ".join(self.fields[:MAX_FIELDS])
        more = len(self.fields) - MAX_FIELDS
        return f"{named} and {more} more" if more > 0 else named


@dataclass(frozen=True)
class FieldConflict:
    """A child that was corrected and may be changed again."""

    drift: Drift
    rounds: int
    """Corrections in a row."""
    last: float
    """Time of the last one."""
    suppressed: bool = False
    """It was changed again, and its correction is postponed."""

    @property
    def is_conflict(self) -> bool:
        """Whether it was changed often enough."""
        return self.rounds >= CONFLICT_AFTER

    @property
    def due(self) -> float:
        """Time of the next correction at the earliest."""
        if not self.is_conflict:
            return self.last
        return self.last + RETRY.delay(self.rounds - CONFLICT_AFTER + 1)

    @property
    def ends(self) -> float:
        """When it is over, if nothing more changes."""
        return self.last + QUIET_SECONDS


@dataclass
class FieldConflicts:
    """The corrections of one resource's children. Times are seconds on one clock."""

    kind: str = KIND
    """Kind of the resource, for messages."""
    _by_child: dict[Child, FieldConflict] = field(default_factory=dict)

    def __len__(self) -> int:
        """Children in conflict."""
        return sum(each.is_conflict for each in self._by_child.values())

    def suppress(self, plan: Plan, now: float) -> Plan:
        """The plan without the corrections that are to be postponed."""
        self._expire(now)
        suppressed = {
            one
            for one, paths in plan.drifted.items()
            if (conflict := self._by_child.get(one))
            and now < conflict.due
            and _is_same_drift(conflict, paths)
        }
        self._by_child = {
            one: replace(conflict, suppressed=one in suppressed)
            for one, conflict in self._by_child.items()
        }
        return plan.without(suppressed)

    def record(
        self, corrected: Iterable[Drift], changed_on_write: Iterable[Drift], now: float
    ) -> list[Drift]:
        """Record what a write corrected, and what came back changed from the very write.

        Returns the corrections that deserve an event: not those of a conflict.
        """
        self._expire(now)
        announced = []
        for drift in corrected:
            before = self._by_child.get(drift.child)
            rounds = before.rounds + 1 if before and _overlap(before.drift, drift) else 1
            conflict = FieldConflict(drift, rounds, now)
            self._by_child[drift.child] = conflict
            if not conflict.is_conflict:
                announced.append(drift)
        for drift in changed_on_write:
            before = self._by_child.get(drift.child)
            rounds = max(CONFLICT_AFTER, before.rounds + 1 if before else 0)
            by_webhook = replace(drift, manager=WEBHOOK)
            self._by_child[drift.child] = FieldConflict(by_webhook, rounds, now)
        return announced

    def problem(self, now: float) -> Problem | None:
        """The longest conflict, which a user has to end; None without one."""
        self._expire(now)
        conflicts = (each for each in self._by_child.values() if each.is_conflict)
        worst = max(conflicts, key=lambda each: each.rounds, default=None)
        return Problem(Reason.FIELD_CONFLICT, _message(worst.drift, self.kind)) if worst else None

    def is_due(self, now: float) -> bool:
        """Whether a postponed correction is due, or a conflict is over."""
        return any(
            now >= (each.due if each.suppressed else each.ends) for each in self._by_child.values()
        )

    def _expire(self, now: float) -> None:
        self._by_child = {
            one: each for one, each in self._by_child.items() if each.suppressed or now < each.ends
        }


def _is_same_drift(conflict: FieldConflict, paths: Sequence[Path]) -> bool:
    """Whether nothing but the fields in conflict changed: another field is corrected at once."""
    fields = {*conflict.drift.fields}
    if not paths:
        # Deleted, or not shown by the watch without its owner's label.
        return not fields or not _LABELS.isdisjoint(fields)
    return {field_path(path) for path in paths} <= fields


def _overlap(before: Drift, now: Drift) -> bool:
    return before.fields == now.fields or bool({*before.fields} & {*now.fields})


def _message(drift: Drift, kind: str) -> str:
    backing_off = "corrections are backing off, up to every 5 minutes"
    if not drift.fields:
        return f"{drift.name} is deleted repeatedly; {backing_off}: find out what deletes it"
    if drift.manager == WEBHOOK and _QUEUE in drift.fields:
        # Kueue's label stays on the object when the queue is gone, and Kueue rejects its removal.
        return (
            f"{drift.name}: Kueue sets {drift.field_list}, since the namespace has or had a "
            f"LocalQueue with the name default; {backing_off}: delete that LocalQueue, then the "
            "server's Deployments and StatefulSets, which are created again"
        )
    if drift.manager == WEBHOOK and any(each.startswith(_VOLUMES) for each in drift.fields):
        # An API server drops what belongs to a feature that is off, without an error.
        return (
            f"{drift.name}: {drift.field_list} comes back changed from each write, as by "
            f"{WEBHOOK} or where the cluster has no image volumes; {backing_off}: for "
            "podTemplate.volumes with an image enable the feature gate ImageVolume, which is on by "
            "default since Kubernetes 1.35"
        )
    if drift.manager == WEBHOOK:
        return (
            f"{drift.name}: {drift.field_list} comes back changed from each write, as by "
            f"{WEBHOOK}; {backing_off}: exempt objects with the label "
            f"{names.MANAGED_BY_LABEL}={FIELD_MANAGER}"
        )
    remedy = (
        f"scale the {kind} instead of its Deployment"
        if "spec.replicas" in drift.fields
        else f"stop it from writing this object, or set the value in the {kind}'s spec"
    )
    if "spec.replicas" in drift.fields and kind == KIND:
        remedy += ", or set spec.autoscaling"
    manager = drift.manager or "another field manager"
    return f"{drift.name}: {manager} repeatedly changes {drift.field_list}; {backing_off}: {remedy}"
