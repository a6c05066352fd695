"""A beginning of which a new replica has a file is restored, and not computed."""

from pathlib import Path

import pytest

from prompt_slots import chat
from prompt_stack import run_stack
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.proxy.optional_features import prime_replicas
from wait_until import until


@pytest.mark.parametrize("saved", [True, False])
async def test_only_what_no_file_has_is_computed(tmp_path: Path, saved: bool) -> None:
    async with run_stack(tmp_path) as stack:
        priming = prime_replicas(stack.balancer.proxy, PrimingOptions(20, learned=True))
        if saved:
            await stack.save("hello")
        learned = priming._learned
        assert learned
        for text in ("hello", "good-bye"):
            await stack.balancer.request(chat(text, "x" * 300))
        assert len(learned.hottest(0)) == 1

        await stack.replace()
        await until(lambda: stack.balancer.dispatcher.has_replica)

        # The fake llama-server has no tokenizer: what is to be computed fails there.
        assert len(learned.hottest(0)) == (1 if saved else 0)
