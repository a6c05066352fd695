"""A balancer with two replicas that keep their prompts in one folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from balancer_harness import DEFAULT_AFFINITY, FAST_PROMPT_TIMINGS, Balancer, run_balancer
from fake_llama import FakeLlama
from prompt_slots import FakeAgent, PromptSlots, chat, reserved_port
from slotkeeper.balancer.prompts.context import PromptTimings
from slotkeeper.balancer.prompts.prompt_files import PromptFiles
from slotkeeper.scheduling import AffinityLimits
from wait_until import until


@dataclass
class Stack:
    """Two replicas on one folder; the second one starts when the first one has ended."""

    balancer: Balancer
    first: FakeLlama
    second: FakeLlama
    first_slots: PromptSlots
    second_slots: PromptSlots
    agents: tuple[FakeAgent, FakeAgent]

    async def save(self, *texts: str) -> None:
        """Leave a prompt of the first replica in a file."""
        before = len(self.agents[0].records)
        await self.balancer.request(chat(*texts))
        await self.balancer.request(chat(*texts))
        await until(lambda: len(self.agents[0].records) > before)

    async def replace(self) -> None:
        """Replace the first replica by the second one."""
        self.balancer.proxy.set_replicas({self.second.name: True})
        await self.joined(self.second)

    async def joined(self, llama: FakeLlama) -> None:
        """Wait until the files of a replica have been listed."""
        replicas = self.prompt_files._replicas
        await until(lambda: llama.name in replicas and replicas[llama.name].compatible)

    def files_of(self, llama: FakeLlama) -> set[str]:
        """The names of the files that are known of a replica."""
        return set(self.prompt_files._replicas[llama.name].sizes)

    @property
    def prompt_files(self) -> PromptFiles:
        prompts = self.balancer.proxy.prompts
        assert prompts
        return prompts.files

    def failures(self, reason: str) -> float:
        return self.balancer.metric("prompt_restore_failures_total", reason=reason)


@asynccontextmanager
async def run_stack(
    folder: Path,
    slots: int = 2,
    affinity: AffinityLimits | None = DEFAULT_AFFINITY,
    timings: PromptTimings = FAST_PROMPT_TIMINGS,
) -> AsyncIterator[Stack]:
    with reserved_port() as port:
        async with (
            FakeLlama(slots) as first,
            FakeLlama(slots, host="127.0.0.2") as second,
            FakeAgent(folder, port=port) as agent,
            FakeAgent(folder, host="127.0.0.2", port=port) as other,
        ):
            other.records = agent.records
            first_slots, second_slots = PromptSlots(first, folder), PromptSlots(second, folder)
            async with run_balancer(
                first, prompt_files=agent.port, affinity=affinity, prompt_timings=timings
            ) as balancer:
                stack = Stack(balancer, first, second, first_slots, second_slots, (agent, other))
                await stack.joined(first)
                yield stack
