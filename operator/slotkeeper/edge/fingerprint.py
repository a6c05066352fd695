"""Fingerprint of a request, by which an identical one is recognized."""

from slotkeeper.wire.message import Request

_WHOLE = 64 * 1024
_EDGE = 32 * 1024


def fingerprint(request: Request) -> int:
    """Return a hash of the path and the body; of a large body, of its size and both ends.

    Keyed by a random number of this process: nobody can construct an equal one.
    """
    if request.size <= _WHOLE:
        return hash((request.path, request.body))
    beginning = request.beginning(_EDGE)[:_EDGE]
    return hash((request.path, request.size, beginning, request.ending(_EDGE)))
