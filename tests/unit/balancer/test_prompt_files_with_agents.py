"""The balancer with agents as they run in each replica, instead of fake ones."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from balancer_harness import Balancer, run_balancer
from fake_llama import FakeLlama
from prompt_slots import IDENTITY, PromptSlots, chat, reserved_port
from raw_http import RawClient, get
from slotkeeper.api.demand_report import DemandReport
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files.agent import Agent, http_limits
from slotkeeper.prompt_files.folder import Folder
from slotkeeper.prompt_files.metrics import Metrics
from slotkeeper.prompt_files.storage import Storage
from slotkeeper.wire.server import Server
from wait_until import until

LIMIT = 100 * 2**20


@asynccontextmanager
async def run_agent(path: Path, host: str, port: int) -> AsyncIterator[None]:
    """Run the agent of a folder."""
    folder = Folder(Storage(path, time.sleep), IDENTITY, Limits(LIMIT, 0), lambda: "")
    folder.prepare(time.time_ns())
    agent = Agent(folder, Metrics(LIMIT), time.monotonic, time.time_ns)
    server = Server(agent.handle, http_limits())
    await server.listen(host, port)
    try:
        yield
    finally:
        await server.close()
        await agent.close()


@dataclass
class Stack:
    """A replica, and another one on the same folder that is not ready yet."""

    balancer: Balancer
    llamas: tuple[FakeLlama, FakeLlama]
    slots: tuple[PromptSlots, PromptSlots]
    folder: Path
    port: int

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if len(path.name) == 32)

    def has_saved(self, count: int) -> bool:
        return self.balancer.metric("prompt_saves_total", reason="repeated") == count

    async def known(self, llama: FakeLlama, condition: Callable[[set[str]], bool]) -> None:
        """Wait until the files that are known of a replica fulfill a condition."""
        prompts = self.balancer.proxy.prompts
        assert prompts
        replicas = prompts.files._replicas
        await until(
            lambda: (
                llama.name in replicas
                and replicas[llama.name].compatible
                and condition(set(replicas[llama.name].sizes))
            )
        )


@asynccontextmanager
async def run_stack(path: Path) -> AsyncIterator[Stack]:
    with reserved_port() as port:
        async with (
            FakeLlama(2) as first,
            FakeLlama(2, host="127.0.0.2") as second,
            run_agent(path, "127.0.0.1", port),
            run_agent(path, "127.0.0.2", port),
        ):
            folder = path / IDENTITY
            slots = PromptSlots(first, folder), PromptSlots(second, folder)
            async with run_balancer(first, prompt_files=port) as balancer:
                stack = Stack(balancer, (first, second), slots, folder, port)
                await stack.known(first, lambda _: True)
                yield stack


async def test_a_prompt_outlives_its_replica(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        first, second = stack.llamas
        await stack.balancer.request(chat("hello", "x" * 8000))
        stack.balancer.terminate(first)
        async with await RawClient.connect(stack.port) as client:
            response = await client.request(get("/wait-done?seconds=20"))
        assert response.body == b'{"done":true}'
        [file] = stack.files()

        stack.balancer.proxy.set_replicas({second.name: True})
        await stack.known(second, lambda names: names == {file.name})
        await stack.balancer.request(chat("hello", "x" * 8000))

        line = stack.balancer.access_log()[-1]
        assert stack.slots[1].actions == [("restore", 0)]
        assert line["cached_tokens"] > 2000


async def test_a_file_with_another_content_is_neither_kept_nor_restored(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        first, second = stack.llamas
        for _ in range(2):
            await stack.balancer.request(chat("hello"))
        await until(partial(stack.has_saved, 1))
        [file] = stack.files()
        stack.balancer.proxy.set_replicas({first.name: True, second.name: True})
        await stack.known(second, lambda names: names == {file.name})
        file.write_bytes(file.read_bytes()[:1000])
        stack.balancer.terminate(first, second)
        await stack.balancer.request(chat("hello"))

        assert stack.balancer.metric("prompt_restore_failures_total", reason="gone") == 1
        assert stack.slots[1].actions == []
        assert not stack.files()


async def test_a_save_that_llama_server_broke_off_is_not_kept(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        stack.slots[0].failing.add("save")
        for _ in range(2):
            await stack.balancer.request(chat("hello"))
        metric = stack.balancer.metric
        await until(lambda: metric("prompt_save_failures_total", reason="failed"))

        assert not stack.files()


async def test_nothing_more_is_saved_of_a_build_whose_files_are_rejected(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        stack.slots[0].packed = False
        for text in ("hello", "hello", "others", "others"):
            await stack.balancer.request(chat(text, system=text * 500))
        prompts = stack.balancer.proxy.prompts
        assert prompts
        await until(lambda: prompts.files.report().reason == Reason.NOT_HONORED)

        assert len(stack.slots[0].actions) == 1
        assert "rejected" in prompts.files.report().message
        await until(lambda: not stack.files())


async def test_a_longer_conversation_leaves_one_file(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        for saves, texts in enumerate((("a",), ("a", "b" * 700)), start=1):
            for _ in range(2):
                await stack.balancer.request(chat(*texts))
            await until(partial(stack.has_saved, saves))
        await until(lambda: len(stack.files()) == 1)


async def test_the_operator_gets_the_state(tmp_path: Path) -> None:
    async with run_stack(tmp_path) as stack:
        for _ in range(2):
            await stack.balancer.request(chat("hello"))
        await until(partial(stack.has_saved, 1))
        response = await stack.balancer.admin_request("/autoscaling")
        report = DemandReport.from_json(response.body).prompt_cache

        assert report
        assert (report.reason, report.files) == (Reason.ACTIVE, 1)
        assert report.bytes == stack.files()[0].stat().st_size
