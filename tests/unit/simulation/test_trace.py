"""Traces are read, written, and taken from an access log; what is none is said to be none."""

import io
import json
from typing import Any

import pytest

from slotkeeper.simulation.trace import TraceError, TraceRequest, read, recorded, write

ANSWERED: dict[str, Any] = {
    "time": 1010.0,
    "outcome": "answered",
    "replica": "10.0.0.1:8080",
    "relayed": False,
    "queue_seconds": 2.0,
    "duration_seconds": 9.5,
}


def log(*lines: dict[str, Any]) -> list[str]:
    return [json.dumps(line) + "\n" for line in lines]


def test_what_is_written_is_read() -> None:
    calls, file = [TraceRequest(0.0, 1.5), TraceRequest(2.125, 0.25)], io.StringIO()

    write(calls, file)

    assert read(file.getvalue().splitlines()) == calls


def test_calls_are_put_in_order_of_time() -> None:
    assert [call.at for call in read(["at,seconds", "5,1", "3,1"])] == [3, 5]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1: the header must be at,seconds, not "),
        (["time,length", "1,2"], "line 1: the header must be at,seconds, not time,length"),
        (["at,seconds"], "there is no request in it"),
        (["at,seconds", "1,2", "1,soon"], "line 3: '1,soon' is no pair of numbers"),
        (["at,seconds", "1,2,3"], "line 2: '1,2,3' is no pair of numbers"),
        (["at,seconds", "1"], "line 2: '1' is no pair of numbers"),
        (["at,seconds", "-1,2"], "line 2: both numbers must be 0 or more"),
        (["at,seconds", "1,nan"], "line 2: both numbers must be 0 or more"),
        (["at,seconds", "inf,1"], "line 2: both numbers must be 0 or more"),
    ],
)
def test_what_is_no_trace_is_refused(lines: list[str], said: str) -> None:
    with pytest.raises(TraceError) as error:
        read(lines)

    assert str(error.value) == said


def test_a_request_of_the_log_came_before_it_waited_and_keeps_its_slot_after_that() -> None:
    later = ANSWERED | {"time": 1020.0, "queue_seconds": 0.0, "duration_seconds": 4.0}

    # They came at 1000.5 and 1016.
    assert recorded(log(later, ANSWERED)) == [TraceRequest(0.0, 7.5), TraceRequest(15.5, 4.0)]


def test_who_got_no_slot_and_who_is_in_another_log_are_left_out() -> None:
    lines = log(
        {"time": 1.0, "level": "info", "message": "listening"},
        ANSWERED | {"replica": None, "outcome": "expired"},
        ANSWERED | {"relayed": True},
        {"time": 1.0, "client": "10.0.0.7", "outcome": "refused", "status": 429},
        ANSWERED,
    )

    assert recorded([*lines, "\n"]) == [TraceRequest(0.0, 7.5)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["GET /v1/models 200\n"], "line 1 is not of a balancer's access log"),
        (["[1]\n"], "line 1 is not of a balancer's access log"),
        (log({"replica": "10.0.0.1:8080"}), "line 1 is not of a balancer's access log"),
        (log({"message": "listening"}), "no line of the access log tells of a request that got a"),
        ([], "no line of the access log tells of a request that got a"),
    ],
)
def test_what_is_no_log_is_refused(lines: list[str], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        recorded(lines)
