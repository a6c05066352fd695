import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post


class Process:
    """A running `slotkeeper balancer` and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.port = 0
        self.metrics_port = 0

    async def says(self, part: str) -> dict[str, Any]:
        """The next line whose message holds `part`."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            if part in self.said[-1].get("message", ""):
                return self.said[-1]
        raise AssertionError(f"it ended without saying {part!r}: {self.said}")

    async def ready(self) -> int:
        async with await RawClient.connect(self.metrics_port) as client:
            return (await client.ask(get("/ready"))).status


@asynccontextmanager
async def process(*argv: str, **env: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotkeeper", "balancer"),
        *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json", *argv),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | env,
    )
    try:
        async with asyncio.timeout(30):
            made = Process(started)
            words = (await made.says("listening on"))["message"].replace(",", "").split()
            made.port, made.metrics_port = (int(words[at].split(":")[1]) for at in (2, 5))
            yield made
            await started.wait()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def test_it_serves_and_on_sigterm_ends_what_it_has() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        process("--replica", llama.name, "--shutdown-delay-seconds", "0") as balancer,
    ):
        await balancer.says("joined with 1 slots")
        assert await balancer.ready() == 200
        async with (
            await RawClient.connect(balancer.port) as running,
            await RawClient.connect(balancer.port) as waiting,
            await RawClient.connect(balancer.port) as late,
        ):
            await running.send(post("/completion", b"1"))
            await llama.called(1)
            await waiting.send(post("/completion", b"2"))
            # An answer on the same connection's neighbour shows that the one before was read.
            while json.loads((await late.ask(get("/v1/models"))).body)["object"] != "list":
                pass
            balancer.process.send_signal(signal.SIGTERM)
            await balancer.says("ending: 2 requests in progress")
            assert await balancer.ready() == 503
            assert await late.at_end()
            async with await RawClient.connect(balancer.port) as new:
                refused = await new.ask(post("/completion"))
                assert (refused.status, refused.headers["connection"]) == (503, "close")

            for number, client in enumerate((running, waiting)):
                (await llama.called(number + 1))[number].go.set()
                assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        await balancer.says("ended: 0 requests cut")
    assert balancer.process.returncode == 0


async def test_sigterm_lingers_so_that_nobody_is_turned_away_meanwhile() -> None:
    async with (
        FakeLlama(1) as llama,
        process("--replica", llama.name, "--shutdown-delay-seconds", "0.5") as balancer,
    ):
        await balancer.says("joined")
        balancer.process.send_signal(signal.SIGTERM)
        await balancer.says("ending")
        assert await balancer.ready() == 503
        async with await RawClient.connect(balancer.port) as client:
            assert (await client.ask(post("/completion"))).status == 200
    assert balancer.process.returncode == 0


async def test_a_drain_that_takes_too_long_is_cut() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        process(
            "--replica", llama.name, "--shutdown-delay-seconds", "0", "--drain-seconds", "0.05"
        ) as it,
        await RawClient.connect(it.port) as client,
    ):
        await client.send(post("/completion"))
        await llama.called(1)
        it.process.send_signal(signal.SIGTERM)
        await it.says("ended: 1 requests cut")
        await llama.calls[0].gone.wait()
    assert it.process.returncode == 0


async def test_an_address_in_use_is_said_in_a_sentence() -> None:
    async with FakeLlama() as llama:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "slotkeeper", "balancer", "--replica", "127.0.0.1:1"),
            *("--listen", llama.name, "--metrics", "127.0.0.1:0", "--log-format", "json"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await started.communicate()

    assert started.returncode == 1
    assert "cannot start" in json.loads(out)["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_without_an_api_server_it_says_so_is_not_ready_and_ends_when_told_to(
    tmp_path: Path, number: signal.Signals
) -> None:
    config = tmp_path / "config"
    named = {"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
    tree = {"clusters": [named], "contexts": [context], "users": [{"name": "a", "user": {}}]}
    config.write_text(json.dumps(tree | {"current-context": "a"}))
    async with process(
        *("--endpoints", "ns/tiny", "--lease", "ns/tiny", "--shutdown-delay-seconds", "0.1"),
        *("--identity", "a", "--advertise", "127.0.0.1"),
        KUBECONFIG=str(config),
    ) as balancer:
        assert "127.0.0.1" in (await balancer.says("endpointslices in namespace ns"))["message"]
        assert await balancer.ready() == 503
        balancer.process.send_signal(number)
        balancer.process.send_signal(number)
        await balancer.says("ended: 0 requests cut")
    assert balancer.process.returncode == 0


async def test_those_who_wait_for_a_stream_get_signs_of_life() -> None:
    async with process(
        *(
            "--replica",
            "127.0.0.1:9",
            "--heartbeat-seconds",
            "0.01",
            "--shutdown-delay-seconds",
            "0",
        )
    ) as balancer:
        async with await RawClient.connect(balancer.port) as client:
            await client.send(post("/completion", b'{"stream":true}'))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head
            await client.reader.readuntil(b": queued, position 1\n\n")
        balancer.process.send_signal(signal.SIGTERM)


async def test_a_key_that_comes_is_let_in_without_a_restart(tmp_path: Path) -> None:
    async with (
        FakeLlama(1) as llama,
        process(
            "--replica", llama.name, "--api-keys", str(tmp_path), "--shutdown-delay-seconds", "0"
        ) as it,
    ):
        assert "rejecting all requests" in it.said[0]["message"]
        await it.says("joined")
        async with await RawClient.connect(it.port) as client:
            ask = post("/completion", b"{}", "Authorization: Bearer one")
            assert (await client.ask(ask)).status == 401
            (tmp_path / "ann").write_text("one")
            await it.says("API keys loaded: 1")
            assert (await client.ask(ask)).status == 200
        it.process.send_signal(signal.SIGTERM)
        await it.says("ended: 0 requests cut")
    assert it.process.returncode == 0


async def test_a_folder_of_keys_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotkeeper", "balancer", "--replica", "127.0.0.1:1"),
        *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *("--api-keys", str(tmp_path / "gone"), "--log-format", "json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await started.communicate()

    assert started.returncode == 1
    assert json.loads(out)["message"] == (
        f"cannot start: cannot read API keys from {tmp_path / 'gone'}: No such file or directory"
    )
