import json

import pytest

from slotkeeper.batches import results
from slotkeeper.batches.client import Reply
from slotkeeper.batches.verdict import Verdict, verdict


def error(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "no"}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"{}", Verdict.SUCCEEDED),
        (503, error("preempted"), Verdict.PREEMPTED),
        (503, error("queue_timeout"), Verdict.THROTTLED),
        (503, b"not JSON", Verdict.THROTTLED),
        (503, b'{"error": "preempted"}', Verdict.THROTTLED),
        (503, b"[" * 100_000, Verdict.THROTTLED),
        (429, error("queue_full"), Verdict.THROTTLED),
        (401, error("invalid_api_key"), Verdict.FAILED),
        (502, error("replica_failed"), Verdict.FAILED),
        (504, b"", Verdict.FAILED),
        (400, b"", Verdict.REJECTED),
        (404, error("model_not_found"), Verdict.REJECTED),
        (422, error("request_crashes_server"), Verdict.REJECTED),
        (500, error("preempted"), Verdict.REJECTED),
    ],
)
def test_what_follows_a_response(status: int, body: bytes, expected: Verdict) -> None:
    assert verdict(status, body) is expected


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{\n "a": 1.0,\r\n "b": "x\\ny \xc3\xa9"\n}\n', b"[1e300, 18446744073709551615]"],
)
def test_a_response_becomes_one_line_with_the_same_values(body: bytes) -> None:
    result = results.of_reply("batch_ab", 4, 'id"\n\u2028', Reply(200, body, None, "req-1"))

    assert result.text.count(b"\n") == 1
    tree = json.loads(result.text)
    assert tree == {
        "id": "batch_req_ab_5",
        "custom_id": 'id"\n\u2028',
        "response": {"status_code": 200, "request_id": "req-1", "body": json.loads(body)},
        "error": None,
    }
    assert (result.line, result.failed) == (4, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": NaN}', b"{}{}", b"\xff", b"[" * 1000])
def test_a_response_that_is_no_json_is_an_error(body: bytes) -> None:
    result = results.of_reply("batch_ab", 0, "a", Reply(200, body))

    tree = json.loads(result.text)
    assert (tree["response"], tree["error"]["code"]) == (None, "invalid_response")
    assert result.failed
