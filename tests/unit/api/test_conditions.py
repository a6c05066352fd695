from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.conditions import (
    ConditionStatus,
    ConditionType,
    ConditionValue,
    conditions,
    rfc3339,
)

THEN = "2026-11-22T10:00:00Z"
NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)

STATUSES: list[ConditionStatus] = ["True", "False", "Unknown"]


def before(status: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "Ready",
            "status": status,
            "reason": "Before",
            "message": "",
            "lastTransitionTime": THEN,
        }
    ]


def test_a_condition_whose_status_changes_has_the_time_of_the_change() -> None:
    value = ConditionValue(ConditionType.READY, "True", "Serving", "1 of 1 replicas serves")

    (condition,) = conditions([value], before("False"), generation=3, now=NOW)

    assert condition.model_dump(by_alias=True) == {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "1 of 1 replicas serves",
        "lastTransitionTime": "2026-11-22T12:30:15Z",
        "observedGeneration": 3,
    }


def test_a_new_condition_has_the_current_time() -> None:
    value = ConditionValue(ConditionType.MODEL_READY, "Unknown", "Unknown", "")

    (condition,) = conditions([value], before("True"), generation=1, now=NOW)

    assert condition.last_transition_time == rfc3339(NOW)


@given(st.sampled_from(STATUSES), st.sampled_from(STATUSES))
def test_the_time_changes_only_with_the_status(old: ConditionStatus, new: ConditionStatus) -> None:
    value = ConditionValue(ConditionType.READY, new, "After", "another message")

    (condition,) = conditions([value], before(old), generation=2, now=NOW)

    assert (condition.last_transition_time == THEN) == (old == new)


def test_times_are_written_in_utc() -> None:
    zone = timezone(timedelta(hours=2))

    assert rfc3339(datetime(2026, 1, 1, 1, 0, tzinfo=zone)) == "2025-12-31T23:00:00Z"
