import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page_scenes import NOW, all_states, event, status
from slotkeeper.gateway.page.state import (
    MAX_EVENTS,
    MAX_MODELS,
    MAX_TEXT,
    PageModel,
    page_state,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def state(*models: PageModel) -> dict[str, Any]:
    return page_state(models, gateway="default/llm", now=NOW)


def test_a_model_has_its_slots_queue_rate_and_replicas() -> None:
    raw = status(8, 3, 2, 1)
    shown = state(PageModel("qwen", "chat", "Ready", "", ("default",), raw, 12.345))

    assert shown["models"] == [
        {
            "name": "qwen",
            "server": "chat",
            "aliases": ["default"],
            "state": "Ready",
            "message": "",
            "replicas": 1,
            "slots": {"total": 8, "busy": 3},
            "queued": 2,
            "tokensPerSecond": 12.3,
        }
    ]


def test_models_are_sorted_by_name() -> None:
    shown = state(*reversed(all_states()))

    assert [model["name"] for model in shown["models"]] == [each.name for each in all_states()]


def test_decisions_of_all_models_are_listed_with_the_newest_first() -> None:
    older = event(500, 1, 2, "DemandAboveCapacity", "busy 4/4")
    newer = event(20, 2, 3, "QueueWaitAboveTarget", "queued 5")
    shown = state(
        PageModel("a", "a", "Ready", status=status(1, 0, 0, 1, older)),
        PageModel("b", "b", "Ready", status=status(1, 0, 0, 1, newer)),
    )

    assert shown["history"] == [
        {"model": "b", "server": "b", **newer, "time": "2026-03-02T09:29:40.000Z"},
        {"model": "a", "server": "a", **older, "time": "2026-03-02T09:21:40.000Z"},
    ]


def test_times_of_different_zones_are_compared_as_instants() -> None:
    early = {**event(0, 1, 2, "Idle", ""), "time": "2026-03-02T10:00:00+02:00"}
    late = {**event(0, 1, 2, "Idle", ""), "time": "2026-03-02T09:00:00Z"}
    shown = state(PageModel("a", "a", "Ready", status=status(1, 0, 0, 1, early, late)))

    assert [each["time"] for each in shown["history"]] == [
        "2026-03-02T09:00:00.000Z",
        "2026-03-02T08:00:00.000Z",
    ]


def test_the_time_of_the_state_is_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    shown = page_state([], gateway="", now=datetime(2026, 3, 2, 12, 0, tzinfo=zone))

    assert shown["updated"] == "2026-03-02T10:00:00.000Z"
    assert datetime.fromisoformat(shown["updated"]).tzinfo == UTC


def test_more_busy_slots_than_slots_are_all_slots() -> None:
    # Busy slots are those of a moment before, if a replica has just been removed.
    assert state(PageModel("a", "a", "Ready", status=status(4, 9, 0, 1)))["models"][0]["slots"] == {
        "total": 4,
        "busy": 4,
    }


def test_the_state_is_bounded() -> None:
    events = [event(n, 1, 2, "Idle", "m" * 5000) for n in range(10)]
    models = [
        PageModel(f"m{n:05}", "s", "Ready", "x" * 5000, status=status(1, 0, 0, 1, *events))
        for n in range(MAX_MODELS + 200)
    ]
    shown = state(*models)

    assert shown["modelCount"] == MAX_MODELS + 200
    assert len(shown["models"]) == MAX_MODELS
    assert len(shown["history"]) == MAX_EVENTS
    assert len(shown["models"][0]["message"]) == len(shown["history"][0]["message"]) == MAX_TEXT


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {"slots": 7, "queued": "5", "readyReplicas": None, "scaling": {"history": {}}},
        {"slots": {"total": -1, "busy": True}, "queued": 10**30, "scaling": "x"},
        {"scaling": {"history": [None, 3, {"time": 5}, {"time": "now"}, {"time": "2026-03-02"}]}},
        {"scaling": {"history": [{"time": "0001-01-01T00:00:00+14:00"}]}},
        {"scaling": {"history": [{"time": "2026-03-02T09:00:00Z", "from": "1", "reason": {}}]}},
    ],
)
def test_a_broken_status_costs_only_what_is_broken(broken: Any) -> None:
    whole = PageModel("b", "b", "Ready", status=status(4, 2, 1, 1))
    first, second = state(PageModel("a", "a", "Ready", status=broken), whole)["models"]

    assert first["slots"] == {"total": 0, "busy": 0}
    assert second["slots"] == {"total": 4, "busy": 2}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "slots": ANY_JSON | st.fixed_dictionaries({"total": ANY_JSON, "busy": ANY_JSON}),
            "queued": ANY_JSON,
            "scaling": ANY_JSON
            | st.fixed_dictionaries(
                {"history": st.lists(st.fixed_dictionaries({"time": ANY_JSON, "from": ANY_JSON}))}
            ),
        },
    )
)
def test_any_status_results_in_valid_json(raw: Any) -> None:
    shown = state(PageModel("a", "a", "Ready", status=raw))

    json.dumps(shown, allow_nan=False)
    [model] = shown["models"]
    assert 0 <= model["slots"]["busy"] <= model["slots"]["total"]
