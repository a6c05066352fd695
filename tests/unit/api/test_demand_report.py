import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.demand_report import (
    PRIME_REASONS,
    PROMPT_CACHE_REASONS,
    DemandReport,
    PrimeReport,
    PromptCacheReport,
    SpeculationReport,
)
from slotkeeper.api.problem_reasons import Reason

COMPLETE: dict[str, Any] = {
    "leader": True,
    "slots": {"total": 4, "busy": 3},
    "queued": 5,
    "furtherTasks": 2,
    "preemptible": 7,
    "oldestQueuedSeconds": 3.2,
    "replicas": 2,
    "busyByReplica": {"10.0.0.7:8080": 3},
    "demand": 10,
    "peakDemand": 11,
    "meanDemand": 4.15,
    "arrivalsPerSecond": 0.35,
    "meanServiceSeconds": 6.2,
    "unresponsive": ["10.0.0.7:8080"],
    "viewAgeSeconds": 0.5,
    "promptCache": {
        "reason": "Active",
        "message": "restoring prompts from 56 files",
        "bytes": 2147483648,
        "files": 56,
        "restoredTokensLastHour": 118550,
    },
    "prime": {
        "reason": "PrimingFailed",
        "message": "not all prompts were computed in 60 s",
        "prompts": 2,
        "learned": 5,
        "tokensLastHour": 4123,
        "replicas": 1,
    },
    "builds": ["b11434-5a1b2c3"],
    "speculation": {"inactive": ["10.0.0.7:8080"], "acceptancePercent": 72},
}

counts = st.integers(0, 10**6)
seconds = st.floats(0, 10**6).map(lambda number: round(number, 3))
reports = st.builds(
    DemandReport,
    leader=st.booleans(),
    total_slots=counts,
    busy_slots=counts,
    queued=counts,
    oldest_queued_seconds=seconds,
    peak_demand=counts,
    replicas=counts,
    busy_by_replica=st.none() | st.dictionaries(st.text(), counts, max_size=3),
    mean_demand=st.none() | seconds,
    arrivals_per_second=seconds,
    mean_service_seconds=st.none() | seconds,
    further_tasks=counts,
    preemptible=counts,
    unresponsive=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    view_age_seconds=seconds,
    builds=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    prompt_cache=st.none()
    | st.builds(
        PromptCacheReport,
        reason=st.sampled_from(sorted(PROMPT_CACHE_REASONS)),
        message=st.text(max_size=20),
        bytes=st.integers(0, 2**53),
        files=counts,
        restored_tokens_last_hour=counts,
    ),
    prime=st.none()
    | st.builds(
        PrimeReport,
        reason=st.sampled_from(sorted(PRIME_REASONS)),
        message=st.text(max_size=20),
        prompts=counts,
        learned=counts,
        tokens_last_hour=st.integers(0, 2**53),
        replicas=counts,
    ),
    speculation=st.none()
    | st.builds(
        SpeculationReport,
        inactive=st.lists(st.text(max_size=20), max_size=3).map(tuple),
        acceptance_percent=st.none() | st.integers(0, 100),
    ),
)


@given(reports)
def test_a_report_survives_a_round_trip(report: DemandReport) -> None:
    assert DemandReport.from_json(json.dumps(report.to_json())) == report


def test_a_report_has_the_documented_form() -> None:
    assert DemandReport.from_json(json.dumps(COMPLETE)).to_json() == COMPLETE


def test_optional_measurements_may_be_absent() -> None:
    required = {"leader", "slots", "queued", "oldestQueuedSeconds", "peakDemand"}
    minimal = {name: value for name, value in COMPLETE.items() if name in required}

    report = DemandReport.from_json(json.dumps(minimal))

    assert (report.demand, report.mean_demand, report.busy_by_replica) == (8, None, None)


def test_a_reason_of_another_release_is_ignored() -> None:
    changed = COMPLETE | {
        "promptCache": PROMPT_CACHE | {"reason": "Restarting"},
        "prime": PRIME | {"reason": "Restarting"},
    }

    report = DemandReport.from_json(json.dumps(changed))

    assert (report.prompt_cache, report.prime, report.demand) == (None, None, 10)


def test_a_long_message_is_cut() -> None:
    report = PromptCacheReport(Reason.UNREACHABLE, "a" * 2000)

    assert PromptCacheReport.from_json(report.to_json()) == PromptCacheReport(
        Reason.UNREACHABLE, "a" * 1000
    )


PROMPT_CACHE = COMPLETE["promptCache"]
PRIME = COMPLETE["prime"]

CHANGES: dict[str, dict[str, Any]] = {
    "no slots": {"slots": None},
    "slots is a number": {"slots": 4},
    "text for a count": {"queued": "many"},
    "a fractional count": {"queued": 1.5},
    "a negative count": {"queued": -1},
    "a boolean": {"queued": True},
    "text for seconds": {"meanServiceSeconds": "long"},
    "infinity": {"oldestQueuedSeconds": float("inf")},
    "not a number": {"meanDemand": float("nan")},
    "more than a float holds": {"peakDemand": 10**400},
    "busy slots that are no numbers": {"busyByReplica": {"a:1": "all"}},
    "busy slots without replicas": {"busyByReplica": 3},
    "more slots than there can be": {"slots": {"total": 10**10, "busy": 0}},
    "more seconds than there can be": {"oldestQueuedSeconds": 1e12},
    "more replicas than a report has room for": {
        "busyByReplica": {f"10.0.0.7:{port}": 1 for port in range(20_000)}
    },
    "unresponsive replicas that are no list": {"unresponsive": {"a:1": 1}},
    "unresponsive replicas that are no names": {"unresponsive": [1]},
    "very many unresponsive replicas": {"unresponsive": ["a:1"] * 2000},
    "an enormous name": {"unresponsive": ["a" * 1000]},
    "a prompt cache that is no object": {"promptCache": "Active"},
    "a reason that is no text": {"promptCache": PROMPT_CACHE | {"reason": ["Active"]}},
    "an enormous message": {"promptCache": PROMPT_CACHE | {"message": "a" * 1001}},
    "more files than there can be": {"promptCache": PROMPT_CACHE | {"files": 10**10}},
    "more bytes than there can be": {"promptCache": PROMPT_CACHE | {"bytes": 2**60}},
    "priming that is no object": {"prime": 3},
    "a negative number of tokens": {"prime": PRIME | {"tokensLastHour": -1}},
    "speculation that is no object": {"speculation": True},
    "an acceptance of more than all": {"speculation": {"acceptancePercent": 101}},
    "replicas without speculation that are no names": {"speculation": {"inactive": [1]}},
    "a fraction of a token": {"promptCache": PROMPT_CACHE | {"restoredTokensLastHour": 0.5}},
}

NOT_REPORTS = [
    pytest.param("", id="empty"),
    pytest.param("[]", id="a list"),
    pytest.param("{}", id="an empty object"),
    pytest.param("[" * 100_000, id="nested deeply"),
    *(pytest.param(json.dumps(COMPLETE | change), id=name) for name, change in CHANGES.items()),
    pytest.param(json.dumps(COMPLETE).replace("3.2", "1e400"), id="a float that overflows"),
]


@pytest.mark.parametrize("body", NOT_REPORTS)
def test_a_malformed_report_raises_value_error(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        DemandReport.from_json(body)
