"""Batches from the upload to the results, through a gateway, in front of fake llama-servers."""

import asyncio
import json
from collections.abc import Awaitable, Collection
from pathlib import Path
from typing import Any

import pytest

from fake_llama import Call, FakeLlama
from raw_http import post
from running_batches import CHAT, lines, request_line, run_batches
from running_gateway import ANN, BOB, KEYS
from slotkeeper.backoff import Backoff
from slotkeeper.batches import worker
from slotkeeper.batches.lines import Index


async def complete(call: Call) -> None:
    tree = json.loads(call.body)
    text = tree["messages"][0]["content"]
    await call.send_json({"object": "chat.completion", "content": text})


async def test_all_requests_of_a_file_are_executed(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4, script=complete) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        batch_id = await batches.start(lines(20), metadata={"job": "nightly"})
        batch = await batches.wait_status(batch_id, "completed")

        assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
        assert batch["metadata"] == {"job": "nightly"}
        assert batch["error_file_id"] is None
        results = await batches.content(batch["output_file_id"])
        assert {each["custom_id"] for each in results} == {f"r{number}" for number in range(20)}
        for each in results:
            assert each["response"]["status_code"] == 200
            assert each["response"]["body"]["content"] == each["custom_id"]
            assert each["error"] is None
        assert {call.headers["x-preemptible"] for call in llama.calls} == {"true"}


async def test_a_rejected_request_is_in_the_file_with_errors(tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        if b"bad" in call.body:
            await call.send_json({"error": {"message": "no", "code": 400}}, "400 Bad Request")
        else:
            await complete(call)

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        batch_id = await batches.start(lines(2) + request_line("bad"))
        batch = await batches.wait_status(batch_id, "completed")

        assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        [error] = await batches.content(batch["error_file_id"])
        assert error["custom_id"] == "bad"
        assert error["response"]["status_code"] == 400
        assert error["response"]["body"]["error"]["message"] == "no"


async def test_a_preempted_request_is_sent_again_and_not_counted(tmp_path: Path) -> None:
    calls = 0

    async def script(call: Call) -> None:
        nonlocal calls
        calls += 1
        if calls <= 7:
            error = {"error": {"code": "preempted", "message": "an ordinary request"}}
            await call.send_json(error, "503 Service Unavailable")
        else:
            await complete(call)

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        # Without delays: each is a second or more.
        batches.worker._scheduler.throttled = lambda *_: None  # type: ignore[method-assign]
        batch = await batches.wait_status(await batches.start(lines(3)), "completed")

        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


async def test_files_and_batches_of_another_key_do_not_exist(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4, script=complete) as llama,
        run_batches(tmp_path, keys=KEYS, one=llama) as batches,
    ):
        file_id = await batches.file_id(lines(1), ANN)
        batch_id = await batches.start(lines(1), ANN)
        await batches.wait_status(batch_id, "completed")

        assert (await batches.get(f"/v1/files/{file_id}", BOB)).error_code == "file_not_found"
        assert (await batches.get(f"/v1/files/{file_id}/content", BOB)).status == 404
        assert (await batches.get(f"/v1/files/{file_id}", BOB, method="DELETE")).status == 404
        assert (await batches.get(f"/v1/batches/{batch_id}", BOB)).error_code == "batch_not_found"
        assert (await batches.create(file_id, BOB)).status == 404
        cancel = post(f"/v1/batches/{batch_id}/cancel", b"{}", BOB)
        assert (await batches.gateway.request(cancel)).status == 404
        for path in ("/v1/files", "/v1/batches"):
            assert json.loads((await batches.get(path, BOB)).body)["data"] == []
            assert json.loads((await batches.get(path, ANN)).body)["data"]
        assert (await batches.get("/v1/files", "X-Nothing: 1")).status == 401
        # The requests had the key of their owner, which the gateway replaces as always.
        assert "authorization" in llama.calls[0].headers


async def test_a_model_that_a_key_may_not_use_does_not_exist_for_its_batches(
    tmp_path: Path,
) -> None:
    spec = {"apiKeys": {"secretRef": {"name": "keys"}, "models": {"ann": ["two"]}}}
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_batches(tmp_path, keys=KEYS, spec=spec, one=one, two=two) as batches,
    ):
        batch = await batches.wait_status(await batches.start(lines(1), ANN), "failed")

        [error] = batch["errors"]["data"]
        assert (error["code"], error["line"]) == ("model_not_found", 1)
        assert one.calls == []


async def test_finished_results_of_a_cancelled_batch_are_kept(tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        if b"r0" not in call.body:
            await call.disconnected.wait()
        await complete(call)

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, concurrency=1, one=llama) as batches,
    ):
        batch_id = await batches.start(lines(5))
        await llama.wait_calls(2)
        response = await batches.gateway.request(post(f"/v1/batches/{batch_id}/cancel", b""))
        assert json.loads(response.body)["status"] == "cancelling"
        batch = await batches.wait_status(batch_id, "cancelled")

        assert batch["request_counts"] == {"total": 5, "completed": 1, "failed": 0}
        assert [each["custom_id"] for each in await batches.content(batch["output_file_id"])] == [
            "r0"
        ]
        again = await batches.gateway.request(post(f"/v1/batches/{batch_id}/cancel", b""))
        assert again.status == 200


async def test_the_requests_left_of_an_expired_batch_are_errors(tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        if b"r0" not in call.body:
            await call.disconnected.wait()
        await complete(call)

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, concurrency=1, one=llama) as batches,
    ):
        batch_id = await batches.start(lines(4))
        await llama.wait_calls(2)
        batches.clock.now += 86_400
        batch = await batches.wait_status(batch_id, "expired")

        assert batch["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
        errors = await batches.content(batch["error_file_id"])
        assert {each["error"]["code"] for each in errors} == {"batch_expired"}
        assert [each["custom_id"] for each in errors] == ["r1", "r2", "r3"]


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"", "empty_file", None),
        (b"{\n", "invalid_json_line", 1),
        (lines(1) + b"\n\n[1]\n", "invalid_json_line", 4),
        (lines(1) + lines(1), "duplicate_custom_id", 2),
        (request_line("a", url="/v1/embeddings"), "mismatched_endpoint", 1),
        (request_line("a", "nobody"), "model_not_found", 1),
        (request_line("a", stream=True), "stream_not_supported", 1),
        (request_line(""), "invalid_custom_id", 1),
        (
            b'{"custom_id":"a","method":"GET","url":"%s","body":{}}' % CHAT.encode(),
            "invalid_method",
            1,
        ),
        (
            b'{"custom_id":"a","method":"POST","url":"%s","body":[]}' % CHAT.encode(),
            "invalid_body",
            1,
        ),
        (
            b'{"custom_id":"a","method":"POST","url":"%s","body":{}}' % CHAT.encode(),
            "missing_model",
            1,
        ),
        (b"[" * 100_000 + b"\n", "invalid_json_line", 1),
        (b"[" * 600_000 + b"\n", "too_many_values", 1),
        (b"x" * (1024 * 1024 + 1), "line_too_long", 1),
        (b'{"a": 1' + b"0" * 5000 + b"}", "invalid_json_line", 1),
        (b'"\\ud800"', "invalid_json_line", 1),
        (b"\xff\xfe", "invalid_json_line", 1),
    ],
)
async def test_a_file_with_an_invalid_line_fails(
    tmp_path: Path, content: bytes, code: str, line: int | None
) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        batch = await batches.wait_status(await batches.start(content), "failed")

        error = batch["errors"]["data"][0]
        assert (error["code"], error["line"]) == (code, line)
        assert llama.calls == []
        assert batch["output_file_id"] is None


async def test_batches_without_slots_yield_to_each_other(tmp_path: Path) -> None:
    order: list[str] = []

    async def script(call: Call) -> None:
        order.append(json.loads(call.body)["messages"][0]["content"][0])
        await asyncio.sleep(0.005)
        await complete(call)

    first = b"".join(request_line(f"a{number}") for number in range(30))
    second = b"".join(request_line(f"b{number}") for number in range(5))
    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, keys=KEYS, concurrency=1, one=llama) as batches,
    ):
        await batches.start(first, ANN)
        await llama.wait_calls(1)
        await batches.start(second, BOB)
        await batches.until(lambda: order.count("b") == 5)

        assert order.count("a") < 30


async def test_the_files_of_one_key_do_not_delay_a_batch_of_another(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4, script=complete) as llama,
        run_batches(tmp_path, keys=KEYS, one=llama) as batches,
    ):
        disk = batches.worker._disk
        scan = disk.scan
        scanned: list[str] = []
        proceed = asyncio.Event()

        async def wait_and_scan(
            path: Path, endpoint: str, max_line: int, models: Collection[str] | None
        ) -> Index:
            scanned.append(path.name)
            await proceed.wait()
            return await scan(path, endpoint, max_line, models)

        disk.scan = wait_and_scan  # type: ignore[method-assign]
        large = await batches.file_id(b"no JSON", ANN)
        small = await batches.file_id(lines(1), BOB)
        for _ in range(3):
            await batches.create(large, ANN)
        await batches.create(small, BOB)
        await batches.until(lambda: scanned)
        proceed.set()
        await batches.until(lambda: len(scanned) == 4)

        assert scanned == [large, small, large, large]


async def test_a_batch_of_a_removed_key_waits_until_the_key_is_there_again(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4, script=complete) as llama,
        run_batches(tmp_path, keys=KEYS, one=llama) as batches,
    ):
        ring = batches.api._keys
        assert ring
        file_id = await batches.file_id(lines(2), ANN)
        created = await batches.create(file_id, ANN)
        ring.replace({"bob": b"key-of-bob"})
        batch_id = json.loads(created.body)["id"]
        await asyncio.sleep(0.15)
        assert llama.calls == []
        assert (await batches.get(f"/v1/batches/{batch_id}", ANN)).status == 401

        # A new key of the same name has the same owner.
        ring.replace({**KEYS, "ann": b"new-key"})
        batches.headers = ["Authorization: Bearer new-key"]
        batch = await batches.wait_status(batch_id, "completed")
        assert batch["request_counts"]["completed"] == 2


async def test_a_request_whose_server_fails_is_sent_five_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(call: Call) -> None:
        call.reset()

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        monkeypatch.setattr(worker, "_RETRY", Backoff(first=0.001, maximum=0.001))
        batch = await batches.wait_status(await batches.start(lines(2)), "completed")

        assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
        for error in await batches.content(batch["error_file_id"]):
            assert error["response"]["status_code"] == 502
            assert error["response"]["body"]["error"]["code"] == "server_failed"
        assert len(llama.calls) == 10


async def test_a_model_that_is_deleted_meanwhile_is_an_error_of_its_requests(
    tmp_path: Path,
) -> None:
    async with FakeLlama(slots=4) as llama, run_batches(tmp_path, one=llama) as batches:
        models = batches.worker._client.models
        batches.worker._client.models = (  # type: ignore[method-assign]
            lambda secret: _with_unknown(models(secret))
        )
        batch = await batches.wait_status(await batches.start(lines(1, "gone")), "completed")

        [error] = await batches.content(batch["error_file_id"])
        assert error["response"]["status_code"] == 404
        assert error["response"]["body"]["error"]["code"] == "model_not_found"


async def _with_unknown(models: Awaitable[frozenset[str]]) -> frozenset[str]:
    return await models | {"gone"}


async def stream(call: Call) -> None:
    """Respond as llama-server does to a request for a stream."""
    tree = json.loads(call.body)
    assert tree["stream"] is True
    text = tree["messages"][0]["content"]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "one"}
    await call.send_head()
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}, {"content": text[:1]}]
    for delta in deltas:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
        await call.send_event(json.dumps({**head, "choices": [choice]}))
    if call.proceed.is_set():
        call.reset()
        return
    choice = {"index": 0, "delta": {"content": text[1:]}, "finish_reason": "stop"}
    await call.send_event(json.dumps({**head, "choices": [choice]}))
    await call.send_event(json.dumps({**head, "choices": [], "usage": {"total_tokens": 7}}))
    await call.send_event("[DONE]")
    await call.end()


async def test_requests_are_streams_with_the_results_of_none(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4, script=stream) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        batch = await batches.wait_status(await batches.start(lines(3)), "completed")

        for each in await batches.content(batch["output_file_id"]):
            assert each["response"]["body"] == {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "one",
                "usage": {"total_tokens": 7},
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": each["custom_id"]},
                    }
                ],
            }


async def test_a_stream_that_is_closed_is_sent_again_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RETRY", Backoff(first=0.001, maximum=0.001))
    monkeypatch.setattr(worker, "PREEMPTED", Backoff(first=0.001, maximum=0.001))
    calls = 0

    async def script(call: Call) -> None:
        nonlocal calls
        calls += 1
        if calls <= 8:
            call.proceed.set()
        await stream(call)

    async with (
        FakeLlama(slots=4, script=script) as llama,
        run_batches(tmp_path, one=llama) as batches,
    ):
        batch = await batches.wait_status(await batches.start(lines(2)), "completed")

        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        assert len(llama.calls) == 10
