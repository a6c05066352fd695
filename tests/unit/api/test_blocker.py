import json

import pytest

from slotkeeper.api.blocker import Obstacle


@pytest.mark.parametrize("lasting", [True, False])
def test_what_was_written_is_read(lasting: bool) -> None:
    obstacle = Obstacle("ModelNotFound", "GET https://example.com/é.gguf answered 404", lasting)

    assert Obstacle.read(obstacle.written()) == obstacle


def test_a_message_without_end_is_cut() -> None:
    obstacle = Obstacle("Unschedulable", "0/5000 nodes are available: " + "taint, " * 1000, False)

    read = Obstacle.read(obstacle.written())

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
        pytest.param('{"reason": "ModelNotFound", "lasting": true}', id="no message"),
    ],
)
def test_nonsense_is_no_obstacle(text: str | None) -> None:
    assert Obstacle.read(text) is None


def test_only_what_is_said_to_last_does() -> None:
    read = Obstacle.read(json.dumps({"reason": "A", "message": "b", "lasting": "no"}))

    assert read == Obstacle("A", "b", lasting=False)
