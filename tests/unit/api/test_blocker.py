import json

import pytest

from slotkeeper.api.blocker import StartBlocker


@pytest.mark.parametrize("permanent", [True, False])
def test_what_was_written_is_read(permanent: bool) -> None:
    obstacle = StartBlocker(
        "ModelNotFound", "GET https://example.com/é.gguf answered 404", permanent
    )

    assert StartBlocker.from_annotation(obstacle.to_annotation()) == obstacle


def test_a_message_without_end_is_cut() -> None:
    obstacle = StartBlocker(
        "Unschedulable", "0/5000 nodes are available: " + "taint, " * 1000, False
    )

    read = StartBlocker.from_annotation(obstacle.to_annotation())

    assert read is not None
    assert len(read.message) == 1000
    assert read.message.endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="nothing"),
        pytest.param("", id="empty"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param('"ModelNotFound"', id="text"),
        pytest.param('{"reason": "ModelNotFound", "permanent": true}', id="no message"),
    ],
)
def test_nonsense_is_no_obstacle(text: str | None) -> None:
    assert StartBlocker.from_annotation(text) is None


def test_only_what_is_said_to_last_does() -> None:
    read = StartBlocker.from_annotation(
        json.dumps({"reason": "A", "message": "b", "permanent": "no"})
    )

    assert read == StartBlocker("A", "b", permanent=False)
