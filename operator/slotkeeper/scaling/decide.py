"""How many replicas demand asks for, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

LATCH_SECONDS = 5.0
"""How far back a sample's peak reaches. Between two samples further apart, nobody looked."""


@dataclass(frozen=True)
class Sample:
    """What the balancer said at one moment."""

    at: float
    """Seconds, on the clock of `decide`'s `now`."""
    busy: int
    """Slots that work on a request."""
    waiting: int
    """Requests that no slot has taken yet."""
    oldest_wait: float
    """Seconds that the oldest of them has waited; 0 where none waits."""
    peak: int
    """Highest demand within the last LATCH_SECONDS, so that short requests between two looks
    count."""

    @property
    def demand(self) -> int:
        """Slots that would be needed for all requests to run at once."""
        return max(self.busy + self.waiting, self.peak)


@dataclass(frozen=True)
class Policy:
    """What a decision must keep to."""

    min_replicas: int
    max_replicas: int
    slots: int
    """Slots of one replica."""
    quiet_seconds: float = 60
    """How long demand must have been low before a replica goes. Loading a model again costs more
    than keeping it for a minute."""

    def bounded(self, replicas: int) -> int:
        """The nearest number of replicas that is allowed."""
        return min(max(replicas, self.min_replicas), self.max_replicas)

    def replicas_for(self, demand: int) -> int:
        """The allowed number of replicas that serves `demand` best."""
        return self.bounded(ceil(demand / self.slots))


class Reason(StrEnum):
    """Why a decision is what it is."""

    DEMAND = "Demand"
    """Demand asks for more replicas."""
    AT_MAXIMUM = "AtMaximum"
    """Demand asks for more replicas than the policy allows, and all of those are there."""
    STEADY = "Steady"
    """Demand asks for as many as there are."""
    HELD = "Held"
    """Demand asks for fewer, but has not done so for long enough."""
    QUIET = "Quiet"
    """Demand has asked for fewer for the whole of the quiet time."""
    NO_NUMBERS = "NoNumbers"
    """The balancer has said nothing, or nothing lately."""
    BOUNDS = "Bounds"
    """There were more or fewer replicas than the policy allows."""


@dataclass(frozen=True)
class Decision:
    """How many replicas there should be."""

    replicas: int
    reason: Reason
    message: str
    """The numbers behind it, such as `busy 4/4, waiting 5, oldest 3.2 s: 2 -> 3`."""


def decide(policy: Policy, samples: Sequence[Sample], *, current: int, now: float) -> Decision:
    """Say how many replicas there should be: up at once, down only after quiet.

    `samples` are in order of time; `current` is how many replicas there are, ready or not. With
    4 slots a replica, 1 to 3 replicas, 60 quiet seconds and a look each second:

    | replicas | demand                                         | wants | reason    |
    |----------|------------------------------------------------|-------|-----------|
    | 1        | 4 for 90 s                                     | 1     | Steady    |
    | 1        | 4 for 90 s, then 5                             | 2     | Demand    |
    | 1        | 5                                              | 2     | Demand    |
    | 1        | 0 for 90 s, then 40                            | 3     | Demand    |
    | 3        | 40 for 90 s                                    | 3     | AtMaximum |
    | 2        | 5 for 90 s, then 1 for 59 s                    | 2     | Held      |
    | 2        | 5 for 90 s, then 1 for 60 s                    | 1     | Quiet     |
    | 3        | 5 for 90 s, then 0 for 30 s                    | 2     | Quiet     |
    | 3        | 0 for 90 s                                     | 1     | Quiet     |
    | 2        | 0 for 90 s, then 9, then 0                     | 2     | Held      |
    | 2        | 0                                              | 2     | Held      |
    | 2        | 0 for 40 s, then none for 9 s, then 0 for 40 s | 2     | Held      |
    | 2        | none                                           | 2     | NoNumbers |
    | 2        | 0 for 90 s, then none for 9 s                  | 2     | NoNumbers |
    | 1        | 9 for 90 s, then none for 9 s                  | 1     | NoNumbers |
    | 0        | none                                           | 1     | Bounds    |
    | 5        | none                                           | 3     | Bounds    |
    | 5        | 9 for 90 s                                     | 3     | Bounds    |
    | 0        | 5                                              | 2     | Demand    |
    """
    held = policy.bounded(current)
    if not samples or now - samples[-1].at > LATCH_SECONDS:
        reason = Reason.NO_NUMBERS if held == current else Reason.BOUNDS
        return Decision(held, reason, f"no numbers from the balancer: {_change(current, held)}")
    newest = samples[-1]
    wanted = policy.replicas_for(newest.demand)
    peak = _peak(samples, start=now - policy.quiet_seconds)
    enough = held if peak is None else policy.replicas_for(peak)
    if wanted > held:
        replicas, reason = wanted, Reason.DEMAND
    elif enough < held:
        replicas, reason = enough, Reason.QUIET
    elif held != current:
        replicas, reason = held, Reason.BOUNDS
    elif wanted < held:
        replicas, reason = held, Reason.HELD
    elif newest.demand > held * policy.slots:
        replicas, reason = held, Reason.AT_MAXIMUM
    else:
        replicas, reason = held, Reason.STEADY
    numbers = _numbers(newest, total=policy.slots * current)
    if reason is Reason.QUIET:
        numbers += f", at most {peak} for {policy.quiet_seconds:g} s"
    return Decision(replicas, reason, f"{numbers}: {_change(current, replicas)}")


def _peak(samples: Sequence[Sample], *, start: float) -> int | None:
    """Highest demand since `start`; None where it was not watched all of that time."""
    peak = 0
    later = None
    for sample in reversed(samples):
        if later is not None and later - sample.at > LATCH_SECONDS:
            return None
        peak = max(peak, sample.demand)
        if sample.at <= start:
            return peak
        later = sample.at
    return None


def _numbers(sample: Sample, *, total: int) -> str:
    numbers = f"busy {sample.busy}/{total}, waiting {sample.waiting}"
    if sample.waiting:
        numbers += f", oldest {sample.oldest_wait:.1f} s"
    if sample.peak > sample.busy + sample.waiting:
        numbers += f", lately {sample.peak}"
    return numbers


def _change(current: int, replicas: int) -> str:
    return f"{current} stays" if replicas == current else f"{current} -> {replicas}"
