"""Request traces: read from CSV, written as CSV, or taken from a balancer's access log."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

COLUMNS = ("at", "seconds")


class TraceError(Exception):
    """An invalid trace; the message states where and why."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace."""

    at: float
    """Arrival time: seconds after the beginning of the trace."""
    service_seconds: float
    """How long it occupies a slot."""


def read(lines: Iterable[str]) -> list[TraceRequest]:
    """Return the requests of a CSV file, in order of time.

    The header is `at,seconds`, followed by a line for each request. Raises TraceError with the
    line number.
    """
    rows = csv.reader(lines)
    header = tuple(name.strip() for name in next(rows, []))
    if header != COLUMNS:
        raise TraceError(f'line 1: header must be "{",".join(COLUMNS)}", not "{",".join(header)}"')
    requests = [_request(row, rows.line_num) for row in rows if row]
    if not requests:
        raise TraceError("no requests in the trace")
    return sorted(requests, key=lambda request: request.at)


def write(requests: Iterable[TraceRequest], file: TextIO) -> None:
    """Write requests as CSV, for `read`."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((round(each.at, 3), round(each.service_seconds, 3)) for each in requests)


def _request(row: list[str], number: int) -> TraceRequest:
    try:
        request = TraceRequest(*map(float, row))
    except (ValueError, TypeError):
        raise TraceError(f"line {number}: must be two numbers, not {','.join(row)!r}") from None
    if not (0 <= request.at < math.inf and 0 <= request.service_seconds < math.inf):
        raise TraceError(f"line {number}: both numbers must be finite and at least 0")
    return request


def from_access_log(lines: Iterable[str]) -> list[TraceRequest]:
    """Return the requests of a balancer's access log that got a slot; the first is at 0.

    The logs of several balancers may be concatenated: each dispatched request is in one of them.
    Raises TraceError.
    """
    requests = list(_logged(lines))
    if not requests:
        raise TraceError("no request in the access log got a slot")
    first = min(request.at for request in requests)
    return sorted(
        (TraceRequest(each.at - first, each.service_seconds) for each in requests),
        key=lambda request: request.at,
    )


def _logged(lines: Iterable[str]) -> Iterator[TraceRequest]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            # Without a replica it never got a slot; the leader logs what a standby relayed to it.
            if entry.get("replica") and not entry.get("relayed"):
                yield TraceRequest(
                    entry["time"] - entry["duration_seconds"],
                    entry["duration_seconds"] - entry["queue_seconds"],
                )
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TraceError(f"line {number}: not a balancer's access log entry") from None
