"""A balancer that primes a new replica beside an old one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from balancer_harness import Balancer, run_balancer
from fake_llama import FakeLlama
from primed_slots import PrimedSlots
from raw_http import post
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.options import PrimingOptions
from wait_until import until

SYSTEM = "You are helpful. " * 20
LONG_SYSTEM = "You are helpful. " * 70
CHAT = SpecPrompt(
    PromptKind.CHAT, json.dumps({"messages": [{"role": "system", "content": SYSTEM}]})
)
TEXT = SpecPrompt(PromptKind.TEXT, "Release notes of version 1. " * 10)
OPTIONS = PrimingOptions(20)


def chat(user: str, system: str = SYSTEM) -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return post("/v1/chat/completions", json.dumps({"messages": messages}).encode())


@dataclass
class Primed:
    """A busy replica, and a new one."""

    balancer: Balancer
    old: FakeLlama
    new: FakeLlama
    slots: PrimedSlots

    def start(self) -> None:
        """Report the new replica as ready, beside the old one."""
        self.balancer.proxy.set_replicas({self.old.name: True, self.new.name: True})

    async def join(self) -> None:
        self.start()
        await until(lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        replica = self.balancer.dispatcher.replicas.get(self.new.name)
        return replica is not None and replica.ready

    async def report(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.balancer.admin_json("/autoscaling"))["prime"]
        return found

    def leave(self) -> None:
        """Report the new replica as deleted."""
        self.balancer.proxy.set_replicas({self.old.name: True})

    def aborted(self, reason: str) -> float:
        return self.balancer.metric("priming_aborted_total", reason=reason)


@asynccontextmanager
async def run_primed(
    *prompts: SpecPrompt, slots: int = 2, options: PrimingOptions = OPTIONS, **settings: Any
) -> AsyncIterator[Primed]:
    async with FakeLlama(1) as old, FakeLlama(slots, host="127.0.0.2") as new:
        # Its slots hold something, as those of a replica that has served before.
        PrimedSlots(old).slots[0].tokens = (9,)
        primed = PrimedSlots(new)
        async with run_balancer(old, priming=options, primed=prompts, **settings) as balancer:
            yield Primed(balancer, old, new, primed)
