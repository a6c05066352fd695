"""What a replica can do wrong, and for how long that sets it aside."""

from enum import Enum

from slotkeeper.backoff import Backoff


class UpstreamFailure(Enum):
    """Why a replica was set aside; the values are the metric's label."""

    REFUSED = "connection_refused"
    """It takes no connection."""
    RESET = "connection_reset"
    """It broke off an answer, or the connection before one."""
    PROTOCOL_ERROR = "protocol_error"
    """What it said is no HTTP."""
    STALLED = "stalled"
    """Nothing came from it for long, and its /health did not answer either."""

    @property
    def outlasts_health_check(self) -> bool:
        """Its /health may be well all the same, and is no reason to trust it again at once."""
        return self in {UpstreamFailure.RESET, UpstreamFailure.PROTOCOL_ERROR}


def ejection_seconds(failures: int, backoff: Backoff) -> float:
    """Seconds for which a replica is ejected before its /health is requested again.

    | consecutive failures | seconds |
    |---|---|
    | 0, 1 | 0: a crashed process fails the check, and any other replica is healthy |
    | 2 | `backoff.first` |
    | each more | twice as long, up to `backoff.maximum` |
    """
    return 0.0 if failures < 2 else backoff.delay(failures - 1)
