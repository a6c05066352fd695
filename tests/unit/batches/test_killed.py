"""The process is killed at random points: no result is lost, none is there twice."""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from balancer_process import Process, run_process
from fake_llama import Call, FakeLlama
from raw_http import RawClient, get, post
from running_batches import Port, lines, upload_request
from running_gateway import RunningGateway, run_gateway

COUNT = 400
KILLS = 8


async def complete(call: Call) -> None:
    text = json.loads(call.body)["messages"][0]["content"]
    if int(text[1:]) % 10 == 0:
        await call.send_json({"error": {"message": text}}, "400 Bad Request")
    else:
        await call.send_json({"content": text})


async def request(gateway: RunningGateway, data: bytes) -> bytes:
    return (await gateway.request(data)).body


async def test_each_request_has_one_result_after_kills_at_random_points(tmp_path: Path) -> None:
    rng = random.Random(1)
    (tmp_path / "data").mkdir()
    async with (
        FakeLlama(slots=8, script=complete) as llama,
        run_gateway({"batches": {}}, test_seconds=120, one=llama) as gateway,
    ):
        flags = (
            *("--gateway", f"127.0.0.1:{gateway.port}", "--data", str(tmp_path / "data")),
            *("--concurrency", "8", "--no-access-log"),
        )
        batch_id = ""
        counts = []
        for kill in range(KILLS + 1):
            async with run_process(*flags, command="batches") as batches:
                gateway.upstreams["llm-batches"] = Port(batches.port)
                if not batch_id:
                    file = json.loads(await request(gateway, upload_request(lines(COUNT))))
                    body = {
                        "input_file_id": file["id"],
                        "endpoint": "/v1/chat/completions",
                        "completion_window": "24h",
                    }
                    created = await request(gateway, post("/v1/batches", json.dumps(body).encode()))
                    batch_id = json.loads(created)["id"]
                if kill < KILLS:
                    seen = len(llama.calls)
                    await llama.wait_calls(seen + rng.randint(1, 40))
                    await asyncio.sleep(rng.random() * 0.01)
                else:
                    await ended(gateway, batch_id)
                    counts.append(await get_batch(gateway, batch_id))
                await kill_process(batches)
                if kill == KILLS:
                    break
        [batch] = counts
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": COUNT, "completed": 360, "failed": 40}
        async with run_process(*flags, command="batches") as batches:
            gateway.upstreams["llm-batches"] = Port(batches.port)
            found = []
            for name in ("output_file_id", "error_file_id"):
                content = await request(gateway, get(f"/v1/files/{batch[name]}/content"))
                found += [json.loads(line)["custom_id"] for line in content.splitlines()]
            await kill_process(batches)
        assert sorted(found) == sorted(f"r{number}" for number in range(COUNT))
        # Those in progress when it was killed were sent twice, and those without a written result.
        assert COUNT <= len(llama.calls) <= COUNT + 16 * KILLS


async def ended(gateway: RunningGateway, batch_id: str) -> None:
    while (  # noqa: ASYNC110 (over HTTP there is no event)
        await get_batch(gateway, batch_id)
    )["status"] != "completed":
        await asyncio.sleep(0.02)


async def get_batch(gateway: RunningGateway, batch_id: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(await request(gateway, get(f"/v1/batches/{batch_id}")))
    return tree


async def kill_process(batches: Process) -> None:
    batches.process.kill()
    await batches.process.wait()


async def test_a_second_process_does_not_use_the_same_data(tmp_path: Path) -> None:
    flags = ("--gateway", "127.0.0.1:1", "--data", str(tmp_path))
    async with run_process(*flags, command="batches") as first:
        async with await RawClient.connect(first.metrics_port) as client:
            for path in ("/ready", "/health", "/metrics"):
                assert (await client.request(get(path))).status == 200
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "slotkeeper", "batches", *flags),
            *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await second.communicate()
        assert second.returncode == 1
        assert b"cannot start: database is locked" in output
        first.process.terminate()
        assert await first.process.wait() == 0
