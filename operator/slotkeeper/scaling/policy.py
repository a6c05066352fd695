"""A server's scaling policy, and the replicas that one sample requires under it."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from math import ceil

from slotkeeper.api.autoscaling import IDLE_SECONDS, Autoscaling, Schedule
from slotkeeper.scaling.queueing import erlang_c_waits, slots_for_wait
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample
from slotkeeper.scaling.schedule import ALWAYS, ActiveSchedule, active_schedule


@dataclass(frozen=True)
class Policy:
    """spec.autoscaling at one time, and the slots of a replica."""

    slots: int
    """Slots of one replica."""
    spec: Autoscaling
    """With the minReplicas and maxReplicas of the active schedule."""
    active: ActiveSchedule = ALWAYS
    """The active schedule, and for how long the policy holds."""

    @classmethod
    def at(cls, slots: int, spec: Autoscaling, now: datetime) -> "Policy":
        """Return the policy at the time `now`."""
        active = active_schedule(spec.schedules, now)
        bounds = spec.bounds(active.schedule)._asdict()
        return cls(slots, spec.model_copy(update=bounds), active)

    @property
    def schedule(self) -> Schedule | None:
        """The active schedule; None outside of all schedules."""
        return self.active.schedule

    @property
    def idle_seconds(self) -> int:
        """Seconds without a request after which a server may scale to zero."""
        return IDLE_SECONDS if self.spec.idle_seconds is None else self.spec.idle_seconds

    @property
    def scale_down_window(self) -> float:
        """Seconds for which fewer replicas must have been enough. At least the window of a sample's
        peak: a single sample is not enough to remove a replica."""
        return max(self.spec.behavior.scale_down.stabilization_window_seconds, PEAK_WINDOW_SECONDS)

    @property
    def history_seconds(self) -> float:
        """Seconds of history that a decision needs."""
        up = self.spec.behavior.scale_up.stabilization_window_seconds
        idle = self.idle_seconds if self.spec.may_be_zero else 0
        return max(up, self.scale_down_window, idle)

    def clamp(self, replicas: int, *, minimum: int | None = None) -> int:
        """Return the nearest allowed number of replicas, with `minimum` instead of minReplicas."""
        lower = self.spec.min_replicas if minimum is None else minimum
        return min(max(replicas, lower), self.spec.max_replicas)

    def required_replicas(self, sample: Sample) -> int:
        """Return the replicas that a sample requires, without bounds: 0 only without requests.

        Preemptible requests require one, however many there are.
        """
        if sample.demand == 0:
            return int(sample.preemptible > 0)
        return max(
            self.for_demand(sample), self.for_mean_demand(sample), self.for_queue_wait(sample)
        )

    def for_demand(self, sample: Sample) -> int:
        """Return the minimum replicas that keep every estimated wait within maxWaitSeconds.

        That is the wait of the last queued request, and of the next arrival weighted with its
        probability, which is the offered load, 1 at most. One slot per request is required without
        measured service times, or once a request has waited longer: then service times are longer
        than they were.
        """
        demand = sample.demand
        service_seconds = sample.mean_service_seconds or 0.0
        if demand < sample.total_slots:
            return 1
        probability = min(1.0, sample.offered_load)
        max_wait = self.spec.max_wait_seconds
        slots = max(
            slots_for_wait(demand, service_seconds, max_wait),
            slots_for_wait(demand + 1, probability * service_seconds, max_wait),
        )
        if demand > sample.total_slots and (
            not service_seconds or sample.oldest_queued_seconds > max_wait
        ):
            slots = max(slots, demand)
        return max(1, ceil(slots / self.slots))

    def for_mean_demand(self, sample: Sample) -> int:
        """Return the minimum replicas that keep the mean demand within targetSlotUtilization."""
        return self.at_utilization(sample.offered_load)

    def at_utilization(self, demand: float) -> int:
        """Return the minimum replicas that keep `demand` within targetSlotUtilization."""
        return ceil(100 * demand / (self.slots * self.spec.target_slot_utilization))

    def for_queue_wait(self, sample: Sample) -> int:
        """Return the minimum replicas with which the mean wait is within maxWaitSeconds.

        By Erlang C. maxReplicas + 1 if those are not enough; 0 without measured service times.
        """
        if not sample.mean_service_seconds:
            return 0
        max_replicas = self.spec.max_replicas
        max_wait = self.spec.max_wait_seconds
        waits = erlang_c_waits(sample.offered_load, sample.mean_service_seconds, self.slots)
        enough = (n for n, wait in enumerate(islice(waits, max_replicas), 1) if wait <= max_wait)
        return next(enough, max_replicas + 1)
