"""The trace ID of a request, as defined by W3C Trace Context."""

import re

from slotkeeper.wire.message import Request

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(request: Request) -> str | None:
    """Return the 32 digits in `traceparent`; None unless there is exactly one, well-formed."""
    values = [
        value
        for name, value in request.headers
        if len(name) == 11 and name.lower() == b"traceparent"
    ]
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    version, trace, parent, more = match.groups()
    # Only versions after 00 may have more fields.
    if version == b"ff" or (version == b"00" and more):
        return None
    if trace == b"0" * 32 or parent == b"0" * 16:
        return None
    return str(trace, "ascii")
