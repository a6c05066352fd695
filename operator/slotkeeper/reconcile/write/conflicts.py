"""Who undoes what the operator does: said when it happens, and slowed down where it goes on. Pure.

    | what others did to a child                | what is done                                   |
    | changed or deleted it                     | put right at once; an event says who and what  |
    | the same again, ROUNDS times              | Degraded, and ever longer pauses               |
    | changed it while it was written (webhook) | the same, from the first time on               |
    | nothing for QUIET_SECONDS                 | forgotten                                      |

What is known here is of this process: a restart forgets it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.backoff import Backoff
from slotkeeper.desired import names
from slotkeeper.kube.objects import Child, Key, child
from slotkeeper.reconcile.observe.pods import Problem
from slotkeeper.reconcile.report.events import EventContent
from slotkeeper.reconcile.write.diff import Path, field_path
from slotkeeper.reconcile.write.plan import Plan

CONFLICT_AFTER = 4
"""After so many times it is a fight: once or twice is somebody who tries something."""

RETRY = Backoff(10.0, 300.0)
"""Seconds until a fought child is written again, doubling."""

QUIET_SECONDS = 600.0
"""So long after the last time it is over: longer than the longest pause and what the other one may
take to come back, which for Argo CD is three minutes."""

DRIFT_CORRECTED = "DriftCorrected"

MOST_FIELDS = 3
"""As many fields are named; a message is to be read."""

WEBHOOK = "a mutating webhook"

_LABEL = ("metadata", "labels", names.SERVER_LABEL)


@dataclass(frozen=True)
class Drift:
    """What others did to a child since it was last written."""

    child: Child
    fields: Sequence[str]
    """None where it was deleted."""
    manager: str = ""
    """Who did it; empty where that is not known."""

    @classmethod
    def of(cls, of: Child, paths: Iterable[Path], manager: str = "") -> "Drift":
        """The drift of a child in these fields."""
        return cls(of, [field_path(path) for path in paths], manager)

    @property
    def what(self) -> str:
        """The child, for people."""
        kind, name = self.child
        return f"{kind.kind} {name}"

    @property
    def where(self) -> str:
        """The fields, for people."""
        named = ", ".join(self.fields[:MOST_FIELDS])
        more = len(self.fields) - MOST_FIELDS
        return f"{named} and {more} more" if more > 0 else named


@dataclass(frozen=True)
class FieldConflict:
    """A child that was put right and may be changed again."""

    drift: Drift
    rounds: int
    last: float
    """When it was last put right."""
    suppressed: bool = False
    """It has been changed again, and is left so for a while."""

    @property
    def is_conflict(self) -> bool:
        """Whether this is more than somebody who tries something."""
        return self.rounds >= CONFLICT_AFTER

    @property
    def due(self) -> float:
        """Not before this is it written again."""
        if not self.is_conflict:
            return self.last
        return self.last + RETRY.delay(self.rounds - CONFLICT_AFTER + 1)

    @property
    def ends(self) -> float:
        """It is over then, should nothing happen."""
        return self.last + QUIET_SECONDS


class FieldConflicts:
    """What others do to the children of all servers."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` is seconds, to measure with."""
        self._monotonic = monotonic
        self._of: dict[Key, dict[Child, FieldConflict]] = {}
        self.corrections: Counter[str] = Counter()
        """How often children were put right, by their kind."""

    def __len__(self) -> int:
        """How many children are fought over."""
        return sum(each.is_conflict for fights in self._of.values() for each in fights.values())

    def suppress(self, key: Key, plan: Plan) -> Plan:
        """The plan without the children that are to be left to the other one for a while."""
        now = self._monotonic()
        fights = self._current(key)
        waiting = {
            one
            for one, paths in plan.drifted.items()
            if (fight := fights.get(one)) and now < fight.due and _is_same_drift(fight, paths)
        }
        for one, fight in fights.items():
            fights[one] = replace(fight, suppressed=one in waiting)
        if not waiting:
            return plan
        return replace(
            plan,
            apply=[each for each in plan.apply if child(each) not in waiting],
            drifted={one: paths for one, paths in plan.drifted.items() if one not in waiting},
        )

    def record(
        self, key: Key, drifts: Iterable[Drift], resisted: Iterable[Drift]
    ) -> list[EventContent]:
        """These have been put right, but for the `resisted`, which came back changed from the very
        write: what is worth an event of it."""
        now = self._monotonic()
        said = list[EventContent]()
        fights = self._of[key] = self._current(key)
        still = {each.child: each for each in resisted}
        for drift in drifts:
            if drift.child in still:
                continue
            self.corrections[drift.child[0].kind] += 1
            before = fights.get(drift.child)
            rounds = before.rounds + 1 if before and _same(before.drift, drift) else 1
            fights[drift.child] = fight = FieldConflict(drift, rounds, now)
            if not fight.is_conflict:
                said.append(EventContent("Warning", DRIFT_CORRECTED, _corrected_message(drift)))
        for one, drift in still.items():
            before = fights.get(one)
            rounds = before.rounds + 1 if before else CONFLICT_AFTER
            fights[one] = FieldConflict(
                replace(drift, manager=WEBHOOK), max(CONFLICT_AFTER, rounds), now
            )
        if not fights:
            self.forget(key)
        return said

    def problem(self, key: Key) -> Problem | None:
        """What somebody has to end; None where nothing is fought over."""
        fought = (each for each in self._current(key).values() if each.is_conflict)
        worst = max(fought, key=lambda each: each.rounds, default=None)
        return Problem(Reason.FIELD_CONFLICT, _conflict_message(worst.drift)) if worst else None

    def due(self) -> list[Key]:
        """The servers of which a child may be written again, or a fight is over."""
        now = self._monotonic()
        return [
            key
            for key, fights in self._of.items()
            if any(now >= (each.due if each.suppressed else each.ends) for each in fights.values())
        ]

    def forget(self, key: Key) -> None:
        """The server is gone."""
        self._of.pop(key, None)

    def _current(self, key: Key) -> dict[Child, FieldConflict]:
        fights = self._of.get(key, {})
        now = self._monotonic()
        current = {one: each for one, each in fights.items() if each.suppressed or now < each.ends}
        if current:
            self._of[key] = current
        else:
            self._of.pop(key, None)
        return current


def _is_same_drift(fight: FieldConflict, paths: Sequence[Path]) -> bool:
    """Whether it is the same again: another field than those fought over is put right at once."""
    fields = {*fight.drift.fields}
    if not paths:
        # Deleted, or out of sight without its label.
        return not fields or field_path(_LABEL) in fields
    return {field_path(path) for path in paths} <= fields


def _same(before: Drift, now: Drift) -> bool:
    return before.fields == now.fields or bool({*before.fields} & {*now.fields})


def _corrected_message(drift: Drift) -> str:
    by = f" by {drift.manager}" if drift.manager else ""
    if not drift.fields:
        return f"{drift.what} was deleted, and is made again"
    verb = "changed" if by else "changed or removed"
    return f"{drift.what}: {drift.where} {verb}{by}, and put right"


def _conflict_message(drift: Drift) -> str:
    who = drift.manager or "somebody"
    slowly = "; it is put right ever more slowly, up to every 5 minutes"
    if not drift.fields:
        return f"{drift.what} is deleted again and again{slowly}: find who does it"
    if drift.manager == WEBHOOK:
        return (
            f"{drift.what}: {drift.where} comes back changed from each write, as by {WEBHOOK}"
            f"{slowly}: exempt what has the label {names.MANAGED_BY_LABEL}={FIELD_MANAGER}"
        )
    help_ = (
        "have a HorizontalPodAutoscaler scale the LlamaServer instead, or set its autoscaling"
        if "spec.replicas" in drift.fields
        else "have it leave this object alone, or say it in the server's spec"
    )
    return f"{drift.what}: {who} changes {drift.where} again and again{slowly}: {help_}"
