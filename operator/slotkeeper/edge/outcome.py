"""How a request ended."""

from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended: `outcome` in the access log and in the metrics."""

    COMPLETED = "completed"
    """The client got the whole response of a replica, whatever its status."""
    REJECTED = "rejected"
    """An error response without queueing: invalid, unauthorized, queue full, shutting down."""
    TIMED_OUT = "timed_out"
    """An error response because no slot became free in time."""
    FAILED = "failed"
    """An error response because replicas failed before the client got any of a response."""
    PREEMPTED = "preempted"
    """A preemptible request that made way for others: an error response, or, if the response had
    begun, the client's connection was closed."""
    CLIENT_DISCONNECTED = "client_disconnected"
    """The client closed its connection before the end of the response."""
    ABORTED = "aborted"
    """The replica failed in the middle of the response, and the client's connection was closed."""

    # Enum's own is a Python function, and each request is counted under its outcome.
    __hash__ = str.__hash__
