"""What a decision must keep to, and how many replicas one look at a balancer asks for."""

from dataclasses import dataclass
from itertools import islice
from math import ceil

from slotkeeper.api.autoscaling import IDLE_SECONDS, Autoscaling
from slotkeeper.scaling.sample import LATCH_SECONDS, Sample
from slotkeeper.scaling.wait import expected_waits


@dataclass(frozen=True)
class Policy:
    """A server's bounds for the number of its replicas."""

    slots: int
    """Slots of one replica."""
    spec: Autoscaling

    @property
    def idle_seconds(self) -> int:
        """Without a request for so long, the last replica goes, if it may."""
        return IDLE_SECONDS if self.spec.idle_seconds is None else self.spec.idle_seconds

    @property
    def quiet_seconds(self) -> float:
        """How long fewer replicas must have been enough. Never less than what a peak reaches back
        to: one look is not enough to take a replica away."""
        return max(self.spec.behavior.scale_down.stabilization_window_seconds, LATCH_SECONDS)

    @property
    def keep_seconds(self) -> float:
        """How far back a decision looks."""
        up = self.spec.behavior.scale_up.stabilization_window_seconds
        idle = self.idle_seconds if self.spec.min_replicas == 0 else 0
        return max(up, self.quiet_seconds, idle)

    def bounded(self, replicas: int, *, least: int | None = None) -> int:
        """The nearest number of replicas that is allowed, with `least` for minReplicas."""
        floor = self.spec.min_replicas if least is None else least
        return min(max(replicas, floor), self.spec.max_replicas)

    def asked(self, sample: Sample) -> int:
        """How many replicas a look asks for, whatever the bounds are: 0 only without demand."""
        if sample.demand == 0:
            return 0
        return max(self.for_demand(sample), self.for_wait(sample))

    def for_demand(self, sample: Sample) -> int:
        """The fewest replicas whose slots demand fills up to the target, or less."""
        return ceil(100 * sample.demand / (self.slots * self.spec.target_slot_utilization))

    def for_wait(self, sample: Sample) -> int:
        """The fewest replicas with which requests need not wait longer than they may, on average.

        One more than maxReplicas where those are too few; 0 where nothing was measured.
        """
        if sample.slot_seconds is None:
            return 0
        most = self.spec.max_replicas
        waits = islice(expected_waits(sample.arrivals, sample.slot_seconds, self.slots), most)
        short = (n for n, wait in enumerate(waits, 1) if wait <= self.spec.max_wait_seconds)
        return next(short, most + 1)
