"""What a gateway keeps in memory, and the container's limit that follows from it.

The sum of the process, its connections, and the bodies of requests, as of a balancer. A gateway
queues no requests: it buffers a body until it has found the model, and while an upstream reads it
slowly. No pydantic: the gateway reads the same numbers.
"""

from slotkeeper.api import balancer_memory
from slotkeeper.api.balancer_memory import MIB

MAX_CONNECTIONS = balancer_memory.MIN_CONNECTIONS

MIN_BODIES = 2
"""Largest bodies that must fit at the same time, or one client could block all others."""

_DEFAULT_BODIES = 4
_MIN_BUFFERED = 64 * MIB


def max_buffered(max_body_bytes: float, memory_limit: float | None = None) -> int:
    """Return the maximum bytes of requests in memory; `memory_limit`: of the container, if set."""
    if memory_limit is None:
        return max(_MIN_BUFFERED, int(_DEFAULT_BODIES * max_body_bytes))
    return balancer_memory.buffered(memory_limit, MAX_CONNECTIONS)


def default_limit(max_body_bytes: float) -> int:
    """Return the memory limit of the container in bytes if the spec sets no resources."""
    return balancer_memory.limit(max_buffered(max_body_bytes), MAX_CONNECTIONS)


def min_limit(max_body_bytes: float) -> int:
    """Return the lowest memory limit of the container in bytes that a spec may set."""
    return balancer_memory.limit(MIN_BODIES * max_body_bytes, MAX_CONNECTIONS)


def batches_limit(max_body_bytes: float) -> int:
    """Return the memory limit of the container for batches in bytes if the spec sets no resources.

    Of batches: requests, responses and results in progress, each up to a total, the indexes of the
    files, uploads, and one line as it is checked.
    """
    return 512 * MIB + int(4 * max_body_bytes)
