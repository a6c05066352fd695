"""OpenAI's own Python package, against a gateway with batches."""

import json
from pathlib import Path
from typing import Any

import pytest

from fake_llama import Call, FakeLlama
from running_batches import CHAT, lines, run_batches
from running_gateway import KEYS

openai = pytest.importorskip("openai", reason="missing: openai. Install it with: make clients")


async def complete(call: Call) -> None:
    text = json.loads(call.body)["messages"][0]["content"]
    await call.send_json({"object": "chat.completion", "content": text})


async def test_the_openai_package_runs_a_batch(tmp_path: Path) -> None:
    source = tmp_path / "requests.jsonl"
    source.write_bytes(lines(40))
    (tmp_path / "data").mkdir()
    async with (
        FakeLlama(slots=4, script=complete) as llama,
        run_batches(tmp_path / "data", keys=KEYS, one=llama) as batches,
        openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{batches.gateway.port}/v1", api_key="key-of-ann"
        ) as client,
    ):
        with source.open("rb") as content:
            file = await client.files.create(file=content, purpose="batch")
        assert (file.filename, file.bytes) == ("requests.jsonl", source.stat().st_size)
        assert (await client.files.retrieve(file.id)).purpose == "batch"

        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint=CHAT,
            completion_window="24h",
            metadata={"job": "nightly"},
        )
        assert batch.status == "validating"
        await batches.wait_status(batch.id, "completed", "failed")
        batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 40
        text = (await client.files.content(batch.output_file_id or "")).text
        results = [json.loads(line) for line in text.splitlines()]
        assert sorted(each["custom_id"] for each in results) == sorted(
            f"r{number}" for number in range(40)
        )

        listed: list[Any] = [each async for each in client.batches.list(limit=1)]
        assert [each.id for each in listed] == [batch.id]
        names = [each.filename async for each in client.files.list(limit=1)]
        assert names == [f"{batch.id}_output.jsonl", "requests.jsonl"]
        only = [each.id async for each in client.files.list(purpose="batch", order="asc")]
        assert only == [file.id]
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file.id)
        with pytest.raises(openai.ConflictError):
            await client.with_options(max_retries=0).batches.cancel(batch.id)


async def test_the_openai_package_cancels_a_batch(tmp_path: Path) -> None:
    async def never(call: Call) -> None:
        await call.disconnected.wait()

    async with (
        FakeLlama(slots=4, script=never) as llama,
        run_batches(tmp_path, one=llama) as batches,
        openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{batches.gateway.port}/v1", api_key="unused"
        ) as client,
    ):
        file = await client.files.create(
            file=("in.jsonl", lines(3)),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 7200},
        )
        assert file.expires_at == file.created_at + 7200
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        await llama.wait_calls(1)
        with pytest.raises(openai.ConflictError, match="reads this file"):
            await client.with_options(max_retries=0).files.delete(file.id)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        ended = await batches.wait_status(batch.id, "cancelled")

        assert ended["output_file_id"] is None
        assert (await client.files.delete(file.id)).deleted
