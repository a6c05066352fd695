"""What follows a response to a request of a batch. Pure.

| response                         | verdict   |
|----------------------------------|-----------|
| 2xx                              | SUCCEEDED |
| 503 `preempted`                  | PREEMPTED |
| 429, other 503                   | THROTTLED |
| 401, 502, 504, connection lost   | FAILED    |
| all others                       | REJECTED  |

A preempted or throttled request is sent again, until the batch expires: there was no slot for it. A
failed one is sent again a few times only, since it may be the cause.
"""

from enum import StrEnum

from slotkeeper import bounded_json

MAX_ATTEMPTS = 5
"""Of a request that fails."""
_MAX_ERROR = 64 * 1024
_FAILED = frozenset((401, 502, 504))


class Verdict(StrEnum):
    """What follows: also the label of the metric."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    PREEMPTED = "preempted"
    THROTTLED = "throttled"
    FAILED = "failed"


def verdict(status: int, body: bytes) -> Verdict:
    """Return what follows a response."""
    if 200 <= status < 300:
        return Verdict.SUCCEEDED
    if status == 503 and error_code(body) == "preempted":
        return Verdict.PREEMPTED
    if status in {429, 503}:
        return Verdict.THROTTLED
    return Verdict.FAILED if status in _FAILED else Verdict.REJECTED


def error_code(body: bytes) -> str:
    """Return the code of an error response; empty without one."""
    try:
        tree = bounded_json.parse(body, max_bytes=_MAX_ERROR)
    except ValueError:
        return ""
    error = tree.get("error") if isinstance(tree, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""
