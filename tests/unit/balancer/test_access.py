import json

import pytest

from balancer_harness import balancer
from fake_llama import FakeLlama, when_told
from raw_http import post
from slotkeeper.balancer.access import AccessRules, RequestAccess
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(b"POST", b"/completion", named, http11=True, keep_alive=True)


def priority(value: str, *, most: int = 5) -> int:
    return RequestAccess(AccessRules(most)).flow_key(request(X_Priority=value)).priority


@pytest.mark.parametrize(
    ("asked", "given"), [("3", 3), ("+3", 3), ("-3", -3), ("6", 5), ("-99", -5), ("0", 0)]
)
def test_a_priority_is_taken_within_its_bounds(asked: str, given: int) -> None:
    assert priority(asked) == given


@pytest.mark.parametrize("value", ["", "high", "1.5", "0x1", "1 2", "1" * 10, "٣"])
def test_a_priority_that_is_no_integer_is_refused(value: str) -> None:
    with pytest.raises(HttpError, match="X-Priority") as refused:
        priority(value)

    assert refused.value.status == 400


def test_without_a_bound_the_header_is_not_looked_at() -> None:
    assert priority("high", most=0) == 0


def test_requests_with_one_secret_have_one_key_which_does_not_show_it() -> None:
    callers = RequestAccess(salt=b"salt")
    one, same, other, none = (
        callers.flow_key(request(**headers)).key
        for headers in (
            {"Authorization": "Bearer a"},
            {"authorization": "Bearer a"},
            {"X_Api_Key": "a"},
            {},
        )
    )

    assert one == same != other
    assert none == ""
    assert one != RequestAccess(salt=b"else").flow_key(request(Authorization="Bearer a")).key


async def test_waiting_requests_go_by_priority_then_by_turns() -> None:
    async with FakeLlama(1, when_told) as llama, balancer(llama, max_priority=1) as made:
        asked = [
            ("running", []),
            ("a1", ["Authorization: a"]),
            ("a2", ["Authorization: a"]),
            ("b1", ["Authorization: b"]),
            ("urgent", ["Authorization: a", "X-Priority: 1"]),
        ]
        clients = [
            await made.start(post("/completion", name.encode(), *headers))
            for name, headers in asked
        ]
        for number in range(len(asked)):
            (await llama.called(number + 1))[number].go.set()
        for client in clients:
            assert (await client.response()).status == 200

    assert [call.body for call in llama.calls] == [b"running", b"urgent", b"a1", b"b1", b"a2"]


async def test_a_malformed_priority_reaches_no_replica() -> None:
    async with FakeLlama() as llama, balancer(llama, max_priority=1) as made:
        response = await made.ask(post("/completion", b"{}", "X-Priority: high"))

        assert (response.status, json.loads(response.body)["error"]["code"]) == (
            400,
            "invalid_priority",
        )
        assert llama.calls == []
