"""The trace that a request belongs to, as W3C Trace Context says it."""

import re

from slotkeeper.wire.message import Request

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(request: Request) -> str | None:
    """The 32 digits in its one well-formed `traceparent`; None where there is no such thing."""
    found = [
        value
        for name, value in request.headers
        if len(name) == 11 and name.lower() == b"traceparent"
    ]
    match = _TRACEPARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        return None
    version, trace, parent, more = match.groups()
    # Only versions to come may say more than the first does.
    if version == b"ff" or (version == b"00" and more):
        return None
    if trace == b"0" * 32 or parent == b"0" * 16:
        return None
    return str(trace, "ascii")
