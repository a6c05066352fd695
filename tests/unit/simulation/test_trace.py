"""Traces are read, written and taken from an access log; invalid ones are rejected."""

import io
import json
from typing import Any

import pytest

from slotkeeper.simulation.trace import TraceError, TraceRequest, from_access_log, read, write

COMPLETED: dict[str, Any] = {
    "time": 1010.0,
    "outcome": "completed",
    "replica": "10.0.0.1:8080",
    "relayed": False,
    "queue_seconds": 2.0,
    "duration_seconds": 9.5,
}


def log(*lines: dict[str, Any]) -> list[str]:
    return [json.dumps(line) + "\n" for line in lines]


def test_a_written_trace_can_be_read() -> None:
    requests, file = [TraceRequest(0.0, 1.5), TraceRequest(2.125, 0.25)], io.StringIO()

    write(requests, file)

    assert read(file.getvalue().splitlines()) == requests


def test_requests_are_sorted_by_time() -> None:
    assert [request.at for request in read(["at,seconds", "5,1", "3,1"])] == [3, 5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], 'line 1: header must be "at,seconds", not ""'),
        (["time,length", "1,2"], 'line 1: header must be "at,seconds", not "time,length"'),
        (["at,seconds"], "no requests in the trace"),
        (["at,seconds", "1,2", "1,soon"], "line 3: must be two numbers, not '1,soon'"),
        (["at,seconds", "1,2,3"], "line 2: must be two numbers, not '1,2,3'"),
        (["at,seconds", "1"], "line 2: must be two numbers, not '1'"),
        (["at,seconds", "-1,2"], "line 2: both numbers must be finite and at least 0"),
        (["at,seconds", "1,nan"], "line 2: both numbers must be finite and at least 0"),
        (["at,seconds", "inf,1"], "line 2: both numbers must be finite and at least 0"),
    ],
)
def test_an_invalid_trace_is_rejected(lines: list[str], message: str) -> None:
    with pytest.raises(TraceError) as error:
        read(lines)

    assert str(error.value) == message


def test_a_logged_request_arrived_before_its_queue_time_and_is_in_service_after_it() -> None:
    later = COMPLETED | {"time": 1020.0, "queue_seconds": 0.0, "duration_seconds": 4.0}

    # They arrived at 1000.5 and 1016.
    assert from_access_log(log(later, COMPLETED)) == [
        TraceRequest(0.0, 7.5),
        TraceRequest(15.5, 4.0),
    ]


def test_requests_without_a_slot_and_those_in_another_log_are_left_out() -> None:
    lines = log(
        {"time": 1.0, "level": "info", "message": "listening"},
        COMPLETED | {"replica": None, "outcome": "timed_out"},
        COMPLETED | {"relayed": True},
        {"time": 1.0, "client": "10.0.0.7", "outcome": "rejected", "status": 429},
        COMPLETED,
    )

    assert from_access_log([*lines, "\n"]) == [TraceRequest(0.0, 7.5)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["GET /v1/models 200\n"], "line 1: not a balancer's access log entry"),
        (["[1]\n"], "line 1: not a balancer's access log entry"),
        (log({"replica": "10.0.0.1:8080"}), "line 1: not a balancer's access log entry"),
        (log({"message": "listening"}), "no request in the access log got a slot"),
        ([], "no request in the access log got a slot"),
    ],
)
def test_an_invalid_access_log_is_rejected(lines: list[str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        from_access_log(lines)
