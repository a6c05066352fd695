"""Requests as they came: read, written, drawn at random, or taken from a balancer's access log."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

COLUMNS = ("at", "seconds")


class TraceError(Exception):
    """A trace that cannot be read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request."""

    at: float
    """Seconds after the trace's beginning."""
    seconds: float
    """How long it keeps a slot."""


def read(lines: Iterable[str]) -> list[TraceRequest]:
    """The calls of a CSV file, in order of time: a header `at,seconds`, then a line for each.

    Raises TraceError with the line's number.
    """
    rows = csv.reader(lines)
    header = tuple(name.strip() for name in next(rows, []))
    if header != COLUMNS:
        raise TraceError(f"line 1: the header must be {','.join(COLUMNS)}, not {','.join(header)}")
    calls = [_call(row, rows.line_num) for row in rows if row]
    if not calls:
        raise TraceError("there is no request in it")
    return sorted(calls, key=lambda call: call.at)


def write(calls: Iterable[TraceRequest], file: TextIO) -> None:
    """Write calls as `read` reads them."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((round(call.at, 3), round(call.seconds, 3)) for call in calls)


def _call(row: list[str], number: int) -> TraceRequest:
    try:
        call = TraceRequest(*map(float, row))
    except (ValueError, TypeError):
        raise TraceError(f"line {number}: {','.join(row)!r} is no pair of numbers") from None
    if not (0 <= call.at < math.inf and 0 <= call.seconds < math.inf):
        raise TraceError(f"line {number}: both numbers must be 0 or more")
    return call


def recorded(lines: Iterable[str]) -> list[TraceRequest]:
    """The calls of a balancer's access log: those that got a slot, from the first one on.

    Of several balancers the logs may follow one another: each request is in one of them.
    """
    found = list(_recorded(lines))
    if not found:
        raise TraceError("no line of the access log tells of a request that got a slot")
    first = min(call.at for call in found)
    return sorted(
        (TraceRequest(call.at - first, call.seconds) for call in found), key=lambda call: call.at
    )


def _recorded(lines: Iterable[str]) -> Iterator[TraceRequest]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            # Without a replica it never got a slot; a relayed one is in the log of who gave it one.
            if said.get("replica") and not said.get("relayed"):
                yield TraceRequest(
                    said["time"] - said["duration_seconds"],
                    said["duration_seconds"] - said["queue_seconds"],
                )
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TraceError(f"line {number} is not of a balancer's access log") from None
