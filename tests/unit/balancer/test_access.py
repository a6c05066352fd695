import json

import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import post
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(b"POST", b"/completion", named, http11=True, keep_alive=True)


def priority(value: str, *, maximum: int = 5) -> int:
    return RequestAccess(AccessRules(maximum)).flow_key(request(X_Priority=value)).priority


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("+3", 3), ("-3", -3), ("6", 5), ("-99", -5), ("0", 0)]
)
def test_a_priority_is_clamped_to_its_maximum(value: str, expected: int) -> None:
    assert priority(value) == expected


@pytest.mark.parametrize("value", ["", "high", "1.5", "0x1", "1 2", "1" * 10, "٣"])
def test_a_priority_that_is_no_integer_is_rejected(value: str) -> None:
    with pytest.raises(HttpError, match="X-Priority") as error:
        priority(value)

    assert error.value.status == 400


def test_without_a_maximum_the_header_is_ignored() -> None:
    assert priority("high", maximum=0) == 0


def test_requests_with_the_same_secret_have_the_same_key_which_does_not_reveal_it() -> None:
    access = RequestAccess(salt=b"salt")
    one, same, other, none = (
        access.flow_key(request(**headers)).key
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


async def test_queued_requests_are_dispatched_by_priority_then_in_turns() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, max_priority=1) as balancer,
    ):
        requests = [
            ("running", []),
            ("a1", ["Authorization: a"]),
            ("a2", ["Authorization: a"]),
            ("b1", ["Authorization: b"]),
            ("urgent", ["Authorization: a", "X-Priority: 1"]),
        ]
        clients = [
            await balancer.start_request(post("/completion", name.encode(), *headers))
            for name, headers in requests
        ]
        for number in range(len(requests)):
            await llama.proceed(number)
        for client in clients:
            assert (await client.response()).status == 200

    assert [call.body for call in llama.calls] == [b"running", b"urgent", b"a1", b"b1", b"a2"]


async def test_a_request_with_a_malformed_priority_reaches_no_replica() -> None:
    async with FakeLlama() as llama, run_balancer(llama, max_priority=1) as balancer:
        response = await balancer.request(post("/completion", b"{}", "X-Priority: high"))

        assert (response.status, json.loads(response.body)["error"]["code"]) == (
            400,
            "invalid_priority",
        )
        assert llama.calls == []
