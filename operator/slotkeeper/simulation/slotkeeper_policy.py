"""Slotkeeper's own scaler, with the same decision function as the operator."""

from datetime import datetime, timedelta

from slotkeeper.api.autoscaling import Autoscaling
from slotkeeper.scaling.decide import Decision, ScalingInput, decide
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.simulation.simulate import Observation

_CHANGES_SECONDS = 1800.0
"""How long a change is kept: no policy of behavior has a longer period."""


class SlotkeeperScaler:
    """Scales on busy slots and queued requests, by `spec.autoscaling`."""

    interval_seconds = 1.0

    def __init__(self, slots: int, spec: Autoscaling, begin: datetime) -> None:
        """`begin` is the calendar time at which the trace begins, for schedules."""
        self._slots = slots
        self._spec = spec
        self._begin = begin
        self._policy = Policy.at(slots, spec, begin)
        self._history = History()
        self._changes: tuple[Change, ...] = ()
        self.decisions: list[tuple[float, Decision]] = []
        """Decisions that changed the number of replicas, with their time in the trace."""

    def desired_replicas(self, observation: Observation) -> int:
        """Return the desired number of replicas after an observation."""
        sample = observation.sample
        current = observation.current_replicas
        policy = self._policy_at(sample.at)
        self._history = self._history.record(
            sample.at, policy.required_replicas(sample), keep=policy.history_seconds
        )
        observed = ScalingInput(sample, self._history, self._changes)
        decision = decide(policy, observed, current=current, now=sample.at)
        if decision.replicas != current:
            self.decisions.append((sample.at, decision))
            recent = (each for each in self._changes if each.at > sample.at - _CHANGES_SECONDS)
            self._changes = (*recent, Change(sample.at, decision.replicas - current))
        return decision.replicas

    def _policy_at(self, seconds: float) -> Policy:
        now = self._begin + timedelta(seconds=seconds)
        if not self._policy.active.holds_at(now):
            self._policy = Policy.at(self._slots, self._spec, now)
        return self._policy
