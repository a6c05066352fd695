"""What the report says about the prompts that replicas have tried."""

import asyncio

import pytest
from typing_extensions import override

from primed_stack import CHAT, TEXT, Primed, run_primed
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.beginnings import RenderedPrompt, from_source
from slotkeeper.balancer.priming.folder import Found
from slotkeeper.balancer.priming.llama import PrimedLlama
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.llamacpp.slots import Slot
from wait_until import until

WITH_CONFIG_MAP = PrimingOptions(20, config_map="beginnings")
TOO_LONG = f"prompts[0]: {len(TEXT.source) + 1} tokens, and a slot has 100"


async def shown(stack: Primed) -> tuple[str, str]:
    report = await stack.report()
    return report["reason"], report["message"]


def mount(stack: Primed, found: Found, problem: str = "") -> None:
    assert stack.balancer.proxy.priming
    stack.balancer.proxy.priming.set_mounted(found, problem)


def set_spec(stack: Primed, *prompts: SpecPrompt) -> None:
    assert stack.balancer.proxy.priming
    stack.balancer.proxy.priming.set_inline(prompts)


async def test_a_rejected_prompt_is_reported_while_the_config_map_changes() -> None:
    async with run_primed(TEXT, options=WITH_CONFIG_MAP) as stack:
        stack.slots.context = 100
        mount(stack, {})
        await stack.join()
        missing = "ConfigMap beginnings does not exist, or has no keys"
        assert await shown(stack) == ("PromptInvalid", f"{missing}; {TOO_LONG}")

        mount(stack, {"key a.json": "it has more than 262144 bytes"})
        expected = f"key a.json: it has more than 262144 bytes; {TOO_LONG}"
        assert await shown(stack) == ("PromptInvalid", expected)

        short = SpecPrompt(PromptKind.TEXT, "Hello, I am a text.")
        mount(stack, {"key a": from_source("key a", short)})
        assert await shown(stack) == ("PromptInvalid", TOO_LONG)


async def test_a_rejected_prompt_keeps_its_result_where_another_one_is_added() -> None:
    async with run_primed(TEXT) as stack:
        stack.slots.context = 100
        await stack.join()

        set_spec(stack, CHAT, TEXT)
        assert (await shown(stack))[1] == TOO_LONG.replace("prompts[0]", "prompts[1]")

        set_spec(stack, CHAT)
        assert (await shown(stack))[0] == "Active"


@pytest.mark.parametrize("is_used", [True, False])
async def test_a_rejected_prompt_is_valid_once_a_replica_computes_it(is_used: bool) -> None:
    async with run_primed(TEXT) as stack:
        stack.slots.context = 100
        await stack.join()
        stack.leave()
        stack.slots.context = 4096
        if is_used:
            # Nothing is tried where a slot holds something, as when another balancer has led.
            stack.slots.slots[1].tokens = (1, 2, 3)
        await stack.join()
        assert (await shown(stack))[0] == ("PromptInvalid" if is_used else "Active")


async def test_prompts_that_no_replica_has_tried_are_not_reported_as_computed() -> None:
    async with run_primed(TEXT) as stack:
        untried = "the next new replica computes the prompts before it gets requests"
        assert await shown(stack) == ("Active", untried)
        await stack.join()
        tried = "new replicas compute the prompts before they get requests"
        assert await shown(stack) == ("Active", tried)
        set_spec(stack, CHAT)
        assert await shown(stack) == ("Active", untried)


async def test_a_timeout_names_the_prompt_that_takes_longer() -> None:
    async with run_primed(CHAT, TEXT, options=PrimingOptions(0.05)) as stack:
        priming = stack.balancer.proxy.priming
        assert priming
        priming._llama = lambda _host, _port: HangingInSlotOne("", 0)
        stack.start()
        await until(lambda: stack.aborted("timeout") == 1)
        message = "not all prompts were computed in 0.05 s, only those before prompts[1]"
        assert await shown(stack) == ("PrimingFailed", message)


class HangingInSlotOne(PrimedLlama):
    """A llama-server that computes at once, but not in its second slot."""

    @override
    async def slots(self) -> tuple[Slot, ...]:
        return (Slot(0, is_processing=False), Slot(1, is_processing=False))

    @override
    async def tokens(self, prompt: RenderedPrompt) -> list[int]:
        return list(range(50)) if prompt.kind is PromptKind.CHAT else list(range(100, 150))

    @override
    async def compute(self, tokens: tuple[int, ...], slot: int | None) -> int:
        if slot == 1:
            await asyncio.Event().wait()
        return len(tokens)
