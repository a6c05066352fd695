"""What a balancer said at one moment."""

from dataclasses import dataclass

PEAK_WINDOW_SECONDS = 5.0
"""How far back a sample's peak reaches. Between two samples further apart, nobody looked."""


@dataclass(frozen=True)
class Sample:
    """What the balancer said at one moment."""

    at: float
    """Seconds, on the clock of `decide`'s `now`."""
    busy_slots: int
    """Slots that work on a request."""
    queued: int
    """Requests that no slot has taken yet."""
    oldest_queued_seconds: float
    """Seconds that the oldest of them has waited; 0 where none waits."""
    peak_demand: int
    """Highest demand within the last LATCH_SECONDS, so that short requests between two looks
    count."""
    total_slots: int = 0
    """Slots of the replicas that are ready."""
    mean_demand: float | None = None
    """Mean demand over the last minutes; None where the balancer does not measure it."""
    mean_service_seconds: float | None = None
    """Seconds that a request keeps its slot, on average; None where too few have ended to say."""

    @property
    def demand(self) -> int:
        """Slots that would be needed for all requests to run at once."""
        return max(self.busy_slots + self.queued, self.peak_demand)

    @property
    def load(self) -> float:
        """Slots that are needed on average."""
        return self.busy_slots + self.queued if self.mean_demand is None else self.mean_demand
