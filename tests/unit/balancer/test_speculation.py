"""Speculative decoding of the replicas in the demand report and in the balancer's metrics."""

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama
from wait_until import until

SLOTS = "/slots"


def reports(guessed: int, accepted: int, *, speculative: bool | None) -> FakeLlama:
    """A replica with these counts, and `speculative` in its /slots."""
    llama = FakeLlama(2)
    counts = {"draft": guessed, "accepted": accepted}

    async def metrics(call: Call) -> None:
        body = "".join(
            f"# TYPE llamacpp:spec_decode_num_{name}_tokens_total counter\n"
            f"llamacpp:spec_decode_num_{name}_tokens_total {count}\n"
            for name, count in counts.items()
        ).encode()
        await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def slots(call: Call) -> None:
        known = {} if speculative is None else {"speculative": speculative}
        await call.send_json(
            [{"id": number, "n_ctx": 512, "is_processing": False, **known} for number in range(2)]
        )

    llama.state_scripts |= {"/metrics": metrics, SLOTS: slots}
    return llama


async def test_guesses_of_all_replicas_are_counted_together() -> None:
    async with (
        reports(100, 90, speculative=True) as first,
        reports(100, 50, speculative=True) as second,
        run_balancer(first, second, speculative=True) as balancer,
    ):
        report = (await balancer.admin_json("/autoscaling"))["speculation"]
        assert report == {"inactive": [], "acceptancePercent": None}
        await until(lambda: balancer.metric("draft_tokens_total") == 200)

        assert balancer.metric("accepted_draft_tokens_total") == 140
        report = (await balancer.admin_json("/autoscaling"))["speculation"]
        assert report == {"inactive": [], "acceptancePercent": 70}


async def test_replicas_that_ignore_the_draft_are_reported() -> None:
    async with (
        reports(0, 0, speculative=False) as ignores,
        reports(0, 0, speculative=True) as guesses,
        reports(0, 0, speculative=None) as older,
        run_balancer(ignores, guesses, older, speculative=True) as balancer,
    ):
        report = (await balancer.admin_json("/autoscaling"))["speculation"]

        assert report == {"inactive": [ignores.name], "acceptancePercent": None}


async def test_without_speculative_decoding_nothing_is_reported() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        assert "speculation" not in await balancer.admin_json("/autoscaling")
        assert b"draft_tokens" not in (await balancer.admin_request("/metrics")).body
