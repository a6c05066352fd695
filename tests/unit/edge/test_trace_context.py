import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama
from raw_http import post

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
FIRST = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "value",
    [FIRST, f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-x"],
)
async def test_a_traceparent_is_forwarded_unchanged_and_logged(value: str) -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        await balancer.request(
            post("/completion", b"{}", f"traceparent: {value}", "tracestate: a=1,b=2")
        )

        assert llama.calls[0].headers["traceparent"] == value
        assert llama.calls[0].headers["tracestate"] == "a=1,b=2"
        assert balancer.access_log()[0]["trace"] == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        "not a trace",
        FIRST.upper(),
        FIRST[:-1],
        FIRST + "-x",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01x",
    ],
)
async def test_an_invalid_traceparent_is_forwarded_too_but_not_logged(value: str) -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/completion", b"{}", f"Traceparent: {value}"))

        assert llama.calls[0].headers["traceparent"] == value
        assert balancer.access_log()[0]["trace"] is None


async def test_two_traceparents_are_not_logged() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/completion", b"{}", *[f"traceparent: {FIRST}"] * 2))

        assert balancer.access_log()[0]["trace"] is None


async def test_a_rejected_requests_trace_is_logged_too() -> None:
    async with run_balancer() as balancer:
        await balancer.request(post("/nowhere", b"{}", f"traceparent: {FIRST}"))

        assert balancer.access_log()[0]["trace"] == TRACE
