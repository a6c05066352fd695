"""What a balancer keeps in memory, and the container's limit that follows from it.

The sum of the process, its connections, and requests. Measured with bodies of 30 kB to 31 MB from
five addresses, 8,000 unfinished heads and 4,000 clients that do not read, at the default limits:
334 MiB of the 512 that the sum allows.
"""

MIB = 1024**2

PROCESS = 128 * MIB
"""The process with the Kubernetes client, metrics, and responses in transit."""

CONNECTION = 16 * 1024
"""One connection: 5 KiB in the process, and the kernel's part."""

OVERHEAD = 1.25
"""Of the allocator, on the bytes of requests."""

MIN_CONNECTIONS = 4096


def max_connections(max_queued_requests: int) -> int:
    """Return the default of connections.maxTotal: room for a full queue from two addresses."""
    return max(MIN_CONNECTIONS, 4 * max_queued_requests)


def limit(buffered: float, connections: int) -> int:
    """Return the bytes of memory with which `buffered` bytes of requests fit."""
    return int(PROCESS + connections * CONNECTION + buffered * OVERHEAD)


def buffered(memory_limit: float, connections: int) -> int:
    """Return the bytes of requests that fit into `memory_limit` bytes."""
    return int((memory_limit - PROCESS - connections * CONNECTION) / OVERHEAD)
