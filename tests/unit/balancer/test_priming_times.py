"""When priming ends, in virtual time."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from typing_extensions import override

from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.beginnings import RenderedPrompt
from slotkeeper.balancer.priming.llama import PrimedLlama
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.balancer.priming_metrics import PrimingMetrics
from slotkeeper.balancer.upstream.replicas import AfterPriming
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.scheduling import Dispatcher, QueueLimits
from virtual_loop import run_virtual

TEXT = "a" * 1000


@dataclass
class SlowLlama(PrimedLlama):
    """Computes `rate` tokens in a second."""

    rate: float
    hangs: bool = False
    chunks: list[int] = field(default_factory=list)
    canceled: bool = False

    @override
    async def slots(self) -> tuple[Slot, ...]:
        if self.hangs:
            await asyncio.sleep(1e9)
        return (Slot(0, is_processing=False, n_ctx=4096),)

    @override
    async def tokens(self, prompt: RenderedPrompt) -> list[int]:
        return list(map(ord, prompt.content))

    @override
    async def compute(self, tokens: tuple[int, ...], slot: int | None) -> int:
        computed = len(tokens) - sum(self.chunks)
        try:
            await asyncio.sleep(computed / self.rate)
        except asyncio.CancelledError:
            self.canceled = True
            raise
        self.chunks.append(computed)
        return computed


def prime(
    llama: SlowLlama, *, request_at: float | None = None
) -> tuple[float, AfterPriming, Priming]:
    """Prime a replica; return how long that took."""

    async def main() -> tuple[float, AfterPriming, Priming]:
        dispatcher: Dispatcher[Any] = Dispatcher(QueueLimits())
        priming = Priming(
            dispatcher, PrimingMetrics("x"), PrimingOptions(60), llama=lambda *_: llama
        )
        priming.set_inline([SpecPrompt(PromptKind.TEXT, TEXT)])
        loop = asyncio.get_running_loop()

        def enqueue() -> None:
            dispatcher.enqueue("request", 1, loop.time())
            priming.on_queue()

        if request_at is not None:
            loop.call_at(request_at, enqueue)
        outcome = await priming.prime("replica:1")
        return loop.time(), outcome, priming

    return run_virtual(main())


def test_chunks_take_half_a_second_once_the_rate_is_known() -> None:
    llama = SlowLlama(512)
    seconds, outcome, _ = prime(llama)
    assert outcome is AfterPriming.IDLE
    assert seconds == pytest.approx(len(TEXT) / 512)
    assert llama.chunks == [64, 0, 256, 256, 256, 168]


@pytest.mark.parametrize("at", [0.01, 0.7, 2.4])
def test_a_request_ends_it_at_once(at: float) -> None:
    llama = SlowLlama(400)
    seconds, outcome, priming = prime(llama, request_at=at)
    assert seconds == at
    assert outcome is AfterPriming.COMPUTING
    assert llama.canceled
    assert priming.report().tokens_last_hour == sum(llama.chunks)


def test_a_hung_replica_ends_it_after_the_limit() -> None:
    seconds, outcome, _ = prime(SlowLlama(1, hangs=True))
    assert (seconds, outcome) == (60, AfterPriming.IDLE)
    seconds, outcome, _ = prime(SlowLlama(1e-9))
    assert (seconds, outcome) == (60, AfterPriming.COMPUTING)
