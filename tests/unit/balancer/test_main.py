import asyncio
import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from balancer_process import run_process
from fake_llama import FakeLlama, stream_two_events
from queued_stream import COMMENT
from raw_http import RawClient, get, post


async def test_it_serves_and_on_sigterm_completes_active_requests() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_process("--replica", llama.name, "--shutdown-delay", "0") as balancer,
    ):
        await balancer.wait_log("ready: 1 slots, 0 busy")
        assert await balancer.readiness() == 200
        async with (
            await RawClient.connect(balancer.port) as running,
            await RawClient.connect(balancer.port) as queued,
            await RawClient.connect(balancer.port) as idle,
        ):
            await running.send(post("/completion", b"1"))
            await llama.wait_calls(1)
            await queued.send(post("/completion", b"2"))
            # A response on another connection shows that the request before it has been read.
            while json.loads((await idle.request(get("/v1/models"))).body)["object"] != "list":
                pass
            balancer.process.send_signal(signal.SIGTERM)
            await balancer.wait_log("shutting down: 2 active requests")
            assert await balancer.readiness() == 503
            assert await idle.at_end()
            async with await RawClient.connect(balancer.port) as new:
                rejected = await new.request(post("/completion"))
                assert (rejected.status, rejected.headers["connection"]) == (503, "close")

            for number, client in enumerate((running, queued)):
                await llama.proceed(number)
                assert (await client.response()).body == b"data: first\n\ndata: last\n\n"
        await balancer.wait_log("shutdown complete: 0 requests aborted")
    assert balancer.process.returncode == 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
@pytest.mark.parametrize(
    ("listen", "host"), [("[::1]:0", "::1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.1")]
)
async def test_it_serves_ipv6_only_and_dual_stack(listen: str, host: str) -> None:
    arguments = ("--listen", listen, "--metrics", listen, "--shutdown-delay", "0")
    async with (
        FakeLlama(1, host="::1") as llama,
        run_process("--replica", llama.name, *arguments) as balancer,
    ):
        await balancer.wait_log("ready: 1 slots, 0 busy")
        async with await RawClient.connect(balancer.port, host=host) as client:
            assert (await client.request(post("/completion"))).status == 200
        async with await RawClient.connect(balancer.metrics_port, host=host) as client:
            assert (await client.request(get("/ready"))).status == 200
        balancer.process.send_signal(signal.SIGTERM)


async def test_after_sigterm_requests_are_accepted_for_the_shutdown_delay() -> None:
    async with (
        FakeLlama(1) as llama,
        run_process("--replica", llama.name, "--shutdown-delay", "0.5") as balancer,
    ):
        await balancer.wait_log("ready")
        balancer.process.send_signal(signal.SIGTERM)
        await balancer.wait_log("shutting down")
        assert await balancer.readiness() == 503
        async with await RawClient.connect(balancer.port) as client:
            assert (await client.request(post("/completion"))).status == 200
    assert balancer.process.returncode == 0


async def test_a_drain_that_takes_too_long_aborts_requests() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_process(
            "--replica", llama.name, "--shutdown-delay", "0", "--drain-timeout", "0.05"
        ) as balancer,
        await RawClient.connect(balancer.port) as client,
    ):
        await client.send(post("/completion"))
        await llama.wait_calls(1)
        balancer.process.send_signal(signal.SIGTERM)
        await balancer.wait_log("shutdown complete: 1 requests aborted")
        await llama.calls[0].disconnected.wait()
    assert balancer.process.returncode == 0


async def test_an_address_in_use_is_logged_as_one_message() -> None:
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
async def test_without_an_api_server_it_logs_so_is_not_ready_and_shuts_down_on_signals(
    tmp_path: Path, number: signal.Signals
) -> None:
    config = tmp_path / "config"
    cluster = {"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
    tree = {"clusters": [cluster], "contexts": [context], "users": [{"name": "a", "user": {}}]}
    config.write_text(json.dumps(tree | {"current-context": "a"}))
    async with run_process(
        *("--endpoints", "ns/tiny", "--lease", "ns/tiny", "--shutdown-delay", "0.1"),
        *("--identity", "a", "--peers", "ns/tiny", "--role", "ns/tiny"),
        KUBECONFIG=str(config),
    ) as balancer:
        assert "127.0.0.1" in (await balancer.wait_log("endpointslices in namespace ns"))["message"]
        assert await balancer.readiness() == 503
        balancer.process.send_signal(number)
        balancer.process.send_signal(number)
        await balancer.wait_log("shutdown complete: 0 requests aborted")
    assert balancer.process.returncode == 0


async def test_queued_streaming_requests_get_keepalive_comments() -> None:
    async with run_process(
        *("--replica", "127.0.0.1:9", "--heartbeat-interval", "0.01"),
        *("--shutdown-delay", "0"),
    ) as balancer:
        async with await RawClient.connect(balancer.port) as client:
            await client.send(post("/completion", b'{"stream":true}'))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head
            await client.reader.readuntil(COMMENT % 1)
        balancer.process.send_signal(signal.SIGTERM)


async def test_a_new_key_is_accepted_without_a_restart(tmp_path: Path) -> None:
    async with (
        FakeLlama(1) as llama,
        run_process(
            "--replica", llama.name, "--api-keys", str(tmp_path), "--shutdown-delay", "0"
        ) as balancer,
    ):
        assert "rejecting all requests" in balancer.logged[0]["message"]
        await balancer.wait_log("ready")
        async with await RawClient.connect(balancer.port) as client:
            request = post("/completion", b"{}", "Authorization: Bearer one")
            assert (await client.request(request)).status == 401
            (tmp_path / "ann").write_text("one")
            await balancer.wait_log("API keys loaded: 1")
            assert (await client.request(request)).status == 200
        balancer.process.send_signal(signal.SIGTERM)
        await balancer.wait_log("shutdown complete: 0 requests aborted")
    assert balancer.process.returncode == 0


async def test_a_missing_key_folder_is_logged_as_one_message(tmp_path: Path) -> None:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotkeeper", "balancer", "--replica", "127.0.0.1:1"),
        *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *("--api-keys", str(tmp_path / "missing"), "--log-format", "json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await started.communicate()

    assert started.returncode == 1
    assert json.loads(out)["message"] == (
        f"cannot start: cannot read API keys from {tmp_path / 'missing'}: No such file or directory"
    )
