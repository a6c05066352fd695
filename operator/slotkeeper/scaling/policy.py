"""What a decision must keep to, and how many replicas one look at a balancer asks for."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from math import ceil

from slotkeeper.api.autoscaling import IDLE_SECONDS, Autoscaling, Schedule
from slotkeeper.scaling.queueing import erlang_c_waits, slots_for_wait
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample
from slotkeeper.scaling.schedule import active_schedule


@dataclass(frozen=True)
class Policy:
    """A server's bounds for the number of its replicas."""

    slots: int
    """Slots of one replica."""
    spec: Autoscaling
    """With the bounds that hold now."""
    schedule: Schedule | None = None
    """Where those come from; None outside of all schedules."""

    @classmethod
    def at(cls, slots: int, spec: Autoscaling, now: datetime) -> "Policy":
        """The policy as it is at this time."""
        schedule = active_schedule(spec.schedules, now)
        bounds = spec.bounds(schedule)._asdict()
        return cls(slots, spec.model_copy(update=bounds), schedule)

    @property
    def idle_seconds(self) -> int:
        """Without a request for so long, the last replica goes, if it may."""
        return IDLE_SECONDS if self.spec.idle_seconds is None else self.spec.idle_seconds

    @property
    def scale_down_window(self) -> float:
        """How long fewer replicas must have been enough. Never less than what a peak reaches back
        to: one look is not enough to take a replica away."""
        return max(self.spec.behavior.scale_down.stabilization_window_seconds, PEAK_WINDOW_SECONDS)

    @property
    def history_seconds(self) -> float:
        """How far back a decision looks."""
        up = self.spec.behavior.scale_up.stabilization_window_seconds
        idle = self.idle_seconds if self.spec.may_be_zero else 0
        return max(up, self.scale_down_window, idle)

    def clamp(self, replicas: int, *, least: int | None = None) -> int:
        """The nearest number of replicas that is allowed, with `least` for minReplicas."""
        floor = self.spec.min_replicas if least is None else least
        return min(max(replicas, floor), self.spec.max_replicas)

    def required_replicas(self, sample: Sample) -> int:
        """How many replicas a look asks for, whatever the bounds are: 0 only without demand."""
        if sample.demand == 0:
            return 0
        return max(
            self.for_demand(sample), self.for_mean_demand(sample), self.for_queue_wait(sample)
        )

    def for_demand(self, sample: Sample) -> int:
        """The fewest replicas with which whoever finds no slot gets one within maxWaitSeconds.

        The next one to come is counted, too, as far as the mean demand lets expect one. A slot for
        each request where nothing was measured, or where one has waited for longer: then requests
        take longer than they used to.
        """
        demand = sample.demand
        seconds = sample.mean_service_seconds or 0.0
        if demand < sample.total_slots:
            return 1
        likely = min(1.0, sample.load)
        may = self.spec.max_wait_seconds
        slots = max(
            slots_for_wait(demand, seconds, may), slots_for_wait(demand + 1, likely * seconds, may)
        )
        if demand > sample.total_slots and (not seconds or sample.oldest_queued_seconds > may):
            slots = max(slots, demand)
        return max(1, ceil(slots / self.slots))

    def for_mean_demand(self, sample: Sample) -> int:
        """The fewest replicas whose slots the mean demand fills up to the target, or less."""
        return self.at_utilization(sample.load)

    def at_utilization(self, demand: float) -> int:
        """The fewest replicas whose slots so much demand fills up to the target, or less."""
        return ceil(100 * demand / (self.slots * self.spec.target_slot_utilization))

    def for_queue_wait(self, sample: Sample) -> int:
        """The fewest replicas with which requests should not wait longer than maxWaitSeconds.

        One more than maxReplicas where those are too few; 0 where nothing was measured.
        """
        if not sample.mean_service_seconds:
            return 0
        most = self.spec.max_replicas
        may = self.spec.max_wait_seconds
        waits = islice(erlang_c_waits(sample.load, sample.mean_service_seconds, self.slots), most)
        enough = (n for n, wait in enumerate(waits, 1) if wait <= may)
        return next(enough, most + 1)
