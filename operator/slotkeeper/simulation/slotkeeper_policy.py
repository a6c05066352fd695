"""Slotkeeper's own scaler, by the very decisions that the operator makes."""

from datetime import datetime, timedelta

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import Decision, ScalingInput, decide
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.simulation.simulate import Observation

_CHANGES_SECONDS = 1800.0
"""How long a change is kept: no policy of behavior has a longer period."""
_SCHEDULE_SECONDS = 60.0
"""A schedule begins with a minute."""


class Slots:
    """Follows busy slots and waiting requests, as `spec.autoscaling` says."""

    every = 1.0

    def __init__(self, slots: int, spec: Autoscaling, begin: datetime) -> None:
        """`begin` is the time of day at which the trace begins."""
        self._slots = slots
        self._spec = spec
        self._begin = begin
        self._policy = Policy.at(slots, spec, begin)
        self._due = _SCHEDULE_SECONDS - begin.second
        self._history = History()
        self._changes: tuple[Change, ...] = ()
        self.decisions: list[tuple[float, Decision]] = []
        """Those that changed the number of replicas, and when, in seconds of the trace."""

    def wanted(self, look: Observation) -> int:
        """How many replicas there should be after this look."""
        sample = look.sample
        policy = self._at(look.sample.at)
        self._history = self._history.record(
            sample.at, policy.required_replicas(sample), keep=policy.history_seconds
        )
        known = ScalingInput(sample, self._history, self._changes)
        decision = decide(policy, known, current=look.current, now=sample.at)
        if decision.replicas != look.current:
            self.decisions.append((sample.at, decision))
            recent = (one for one in self._changes if one.at > sample.at - _CHANGES_SECONDS)
            self._changes = (*recent, Change(sample.at, decision.replicas - look.current))
        return decision.replicas

    def _at(self, seconds: float) -> Policy:
        if self._spec.schedules and seconds >= self._due:
            self._due += _SCHEDULE_SECONDS
            now = self._begin + timedelta(seconds=seconds)
            self._policy = Policy.at(self._slots, self._spec, now)
        return self._policy
