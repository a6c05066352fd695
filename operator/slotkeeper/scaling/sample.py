"""One sample of the metrics that a balancer reports."""

from dataclasses import dataclass

PEAK_WINDOW_SECONDS = 5.0
"""Window of a sample's peak demand. Two samples further apart have a gap between them."""


@dataclass(frozen=True)
class Sample:
    """The metrics of a balancer at one moment."""

    at: float
    """Seconds, on the clock of `decide`'s `now`."""
    busy_slots: int
    """Slots with a request on them."""
    queued: int
    """Requests without a slot."""
    oldest_queued_seconds: float
    """Seconds that the oldest of them has been queued; 0 without any."""
    peak_demand: int
    """Maximum demand over the last PEAK_WINDOW_SECONDS, so that a short request between two polls
    counts."""
    total_slots: int = 0
    """Slots of the ready replicas."""
    mean_demand: float | None = None
    """Mean demand over the last minutes; None if the balancer does not measure it."""
    mean_service_seconds: float | None = None
    """Mean service time of a request; None before enough completions."""
    further_tasks: int = 0
    """Slots that requests need beyond one each, for several prompts or completions."""
    preemptible: int = 0
    """Running and queued preemptible requests, which count in no other number."""

    @property
    def current_demand(self) -> int:
        """Slots that all requests would need to run at once, at this moment."""
        return self.busy_slots + self.queued + self.further_tasks

    @property
    def demand(self) -> int:
        """The same, at most in the last PEAK_WINDOW_SECONDS."""
        return max(self.current_demand, self.peak_demand)

    @property
    def offered_load(self) -> float:
        """Mean number of slots that requests need, in Erlang; estimated by the mean demand."""
        return self.current_demand if self.mean_demand is None else self.mean_demand
