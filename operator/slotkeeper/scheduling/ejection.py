"""What a replica can do wrong, and for how long that sets it aside."""

from enum import Enum


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


def ejection_seconds(strikes: int, first: float, last: float) -> float:
    """How long a replica is left alone before it is asked for its /health again.

    | strikes | seconds |
    |---|---|
    | 0, 1 | 0: a process that crashed shows it, and one that did not is well |
    | 2 | `first` |
    | each more | twice as long, `last` at most |

    `strikes`: how often it failed since its last good answer.
    """
    if strikes < 2:
        return 0.0
    # Far beyond any limit already, and no float overflows.
    return min(last, first * 2.0 ** min(strikes - 2, 64))
