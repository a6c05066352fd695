import json

import pytest

from slotkeeper.api.blocker import StartBlocker


@pytest.mark.parametrize("permanent", [True, False])
def test_a_blocker_survives_a_round_trip(permanent: bool) -> None:
    blocker = StartBlocker(
        "ModelNotFound", "GET https://example.com/é.gguf returned 404", permanent
    )

    assert StartBlocker.from_annotation(blocker.to_annotation()) == blocker


def test_a_long_message_is_truncated() -> None:
    blocker = StartBlocker(
        "Unschedulable", "0/5000 nodes are available: " + "taint, " * 1000, False
    )

    read = StartBlocker.from_annotation(blocker.to_annotation())

    assert read is not None
    assert len(read.message) == 1000
    assert read.message.endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param('"ModelNotFound"', id="text"),
        pytest.param('{"reason": "ModelNotFound", "permanent": true}', id="no message"),
        pytest.param("[" * 200_000, id="very many brackets"),
        pytest.param("[" * 10_000, id="many brackets"),
        pytest.param('{"reason": NaN, "message": "", "permanent": 1}', id="no number"),
        pytest.param(json.dumps({"reason": "A", "message": "x" * 20_000}), id="long"),
    ],
)
def test_a_malformed_annotation_is_no_blocker(text: str | None) -> None:
    assert StartBlocker.from_annotation(text) is None


def test_the_longest_message_of_the_operator_is_read() -> None:
    blocker = StartBlocker("A", "\U0001f600" * 1000, permanent=False)

    assert StartBlocker.from_annotation(blocker.to_annotation()) == blocker


def test_only_the_value_true_is_permanent() -> None:
    read = StartBlocker.from_annotation(
        json.dumps({"reason": "A", "message": "b", "permanent": "no"})
    )

    assert read == StartBlocker("A", "b", permanent=False)
