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

    @property
    def demand(self) -> int:
        """Slots that all requests would need to run at once."""
        return max(self.busy_slots + self.queued, self.peak_demand)

    @property
    def offered_load(self) -> float:
        """Mean number of slots that requests need, in Erlang; estimated by the mean demand."""
        return self.busy_slots + self.queued if self.mean_demand is None else self.mean_demand
