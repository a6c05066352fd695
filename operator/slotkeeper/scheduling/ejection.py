"""Ejection of failed replicas: the kinds of failure, and for how long each one ejects."""

from enum import Enum

from slotkeeper.backoff import Backoff


class UpstreamFailure(Enum):
    """Why a replica was ejected; the values are the metric's label."""

    REFUSED = "connection_refused"
    """It accepts no connection."""
    RESET = "connection_reset"
    """It closed the connection during a response or before one."""
    PROTOCOL_ERROR = "protocol_error"
    """It sent something that is not HTTP."""
    STALLED = "stalled"
    """It sent nothing for long, and its /health did not respond either."""
    WEDGED = "wedged"
    """It sent nothing for minutes, and its /slots did not respond, though its /health did."""

    @property
    def outlasts_health_check(self) -> bool:
        """Whether the replica may fail again although its /health succeeds."""
        return self in {UpstreamFailure.RESET, UpstreamFailure.PROTOCOL_ERROR}


def ejection_seconds(failures: int, backoff: Backoff) -> float:
    """Return for how long a replica stays ejected before its /health is requested again.

    | consecutive failures | seconds |
    |---|---|
    | 0, 1 | 0: a crashed process fails the check, and any other replica is healthy |
    | 2 | `backoff.first` |
    | each more | twice as long, up to `backoff.maximum` |
    """
    return 0.0 if failures < 2 else backoff.delay(failures - 1)
