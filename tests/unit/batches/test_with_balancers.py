"""The whole way of a batch: its process, gateway, balancer, and a fake llama-server."""

import json
from pathlib import Path

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama
from raw_http import post
from running_batches import CHAT, lines, run_batches
from slotkeeper.backoff import Backoff
from slotkeeper.batches import worker

QUICK = Backoff(first=0.001, maximum=0.001)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_RETRY", "PREEMPTED", "THROTTLED"):
        monkeypatch.setattr(worker, name, QUICK)


async def test_a_batch_yields_its_slot_at_once_and_is_completed_later(tmp_path: Path) -> None:
    held: list[Call] = []

    async def script(call: Call) -> None:
        tree = json.loads(call.body)
        content = tree["messages"][0]["content"]
        if not tree.get("stream"):
            await call.send_json({"object": "chat.completion", "content": content})
            return
        await call.send_head()
        choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
        await call.send_event(json.dumps({"choices": [choice]}))
        if not held:
            held.append(call)
            await call.disconnected.wait()
            return
        await call.send_event(json.dumps({"choices": [{**choice, "finish_reason": "stop"}]}))
        await call.send_event("[DONE]")
        await call.end()

    async with (
        FakeLlama(1, script) as llama,
        run_balancer(llama) as balancer,
        run_batches(tmp_path, one=balancer) as batches,
    ):
        batch_id = await batches.start(lines(3))
        await batches.until(lambda: held)

        message = {"role": "user", "content": "now"}
        ordinary = json.dumps({"model": "one", "messages": [message]}).encode()
        response = await batches.gateway.request(post(CHAT, ordinary))
        assert (response.status, json.loads(response.body)["content"]) == (200, "now")
        assert held[0].disconnected.is_set()

        batch = await batches.wait_status(batch_id, "completed")
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        results = await batches.content(batch["output_file_id"])
        assert sorted(each["custom_id"] for each in results) == ["r0", "r1", "r2"]
        assert llama.overcommitted == 0
