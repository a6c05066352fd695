"""Clients that send what they should not: forms, paths, keys, sizes."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from balancer_process import run_process
from fake_llama import Call, FakeLlama, never_respond
from raw_http import RawClient, get, post
from running_batches import (
    Port,
    RunningBatches,
    form,
    form_request,
    lines,
    request_line,
    run_batches,
    upload_request,
)
from running_gateway import ANN, BOB, KEYS
from slotkeeper.batches.api import MAX_UNFINISHED, ApiLimits
from slotkeeper.gateway.batches import MAX_UPLOADS, MAX_UPLOADS_OF_KEY
from slotkeeper.wire.limits import MIB

VALID = b'{"endpoint":"/v1/completions","completion_window":"24h","input_file_id":"FILE"}'


def contents(batches: RunningBatches) -> list[str]:
    return [each.name for each in (batches.store.folder / "contents").iterdir()]


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_form_without_an_end_leaves_nothing(tmp_path: Path, size: int) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        body = form(b"x" * size).removesuffix(b"--form--\r\n")
        response = await batches.gateway.request(form_request(body))

        assert (response.status, response.error_code) == (400, "invalid_form")
        await batches.until(lambda: not contents(batches))


async def test_a_client_that_disconnects_leaves_nothing(tmp_path: Path) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        client = await batches.gateway.connect()
        data = upload_request(b"x" * 500_000)
        await client.send(data[:300_000])
        await batches.until(lambda: contents(batches))
        client.reset()
        await batches.until(lambda: not contents(batches))
        await batches.until(lambda: not batches.gateway.gateway.batches.active)

        assert batches.gateway.gateway.batches.uploads.total() == 0
        assert (await batches.upload(lines(1))).status == 200


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\\\..\\\\boot.ini", "boot.ini"),
        ("..", "file"),
        ("", "file"),
        ('a\\"b', 'a"b'),
        ("\x00\x1b[31m.jsonl", "[31m.jsonl"),
        ("é" * 300, "é" * 255),
    ],
)
async def test_a_filename_is_never_a_path(tmp_path: Path, sent: str, stored: str) -> None:
    (tmp_path / "data").mkdir()
    async with FakeLlama() as llama, run_batches(tmp_path / "data", one=llama) as batches:
        response = await batches.upload(b"{}\n", filename=sent)
        file = json.loads(response.body)
        content = await batches.get(f"/v1/files/{file['id']}/content")

        assert file["filename"] == stored
        assert content.body == b"{}\n"
        assert contents(batches) == [file["id"]]
        assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form(b"{}", purpose="fine-tune"), "invalid_purpose"),
        (form(b"{}", purpose="x" * 2000), "invalid_form"),
        (b"", "invalid_form"),
        (b"--form--", "invalid_form"),
        (form(b"{}").replace(b'filename="in.jsonl"', b""), "invalid_form"),
        (form(b"{}").replace(b'name="file"', b'name="other"'), "invalid_form"),
        (form(b"{}").replace(b'name="purpose"', b'name="file"; filename="x"'), "invalid_form"),
        (form(b"{}\r\n--formular"), "invalid_form"),
    ],
)
async def test_other_forms_are_rejected(tmp_path: Path, body: bytes, code: str) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        response = await batches.gateway.request(form_request(body))

        assert (response.status, response.error_code) == (400, code)
        await batches.until(lambda: not contents(batches))


async def test_a_larger_file_is_rejected_before_it_is_sent(tmp_path: Path) -> None:
    limits = ApiLimits(MIB, 3600)
    async with FakeLlama() as llama, run_batches(tmp_path, limits=limits, one=llama) as batches:
        async with await batches.gateway.connect() as client:
            await client.send(
                b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n"
                b"Content-Type: multipart/form-data; boundary=form\r\n\r\n" + form(b"x" * 100_000)
            )
            response = await client.response()
            assert (response.status, response.error_code) == (413, "file_too_large")
            assert await client.at_end()
        # Not even with a form that is smaller than it states.
        assert (await batches.upload(b"x" * (MIB + 1))).error_code == "file_too_large"
        await batches.until(lambda: not contents(batches))


async def test_a_full_storage_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=4) as llama,
        run_batches(tmp_path, store_bytes=100_000, one=llama) as batches,
    ):
        file_id = await batches.file_id(b"x" * 60_000)
        response = await batches.upload(b"x" * 60_000)
        assert (response.status, response.error_code) == (507, "insufficient_storage")

        batches.store.max_bytes = None
        batches.store._free = lambda _: 0
        assert (await batches.upload(b"x")).status == 507
        assert (await batches.get(f"/v1/files/{file_id}", method="DELETE")).status == 200
        await batches.until(lambda: not contents(batches))


async def test_uploads_at_the_same_time_do_not_exceed_the_storage(tmp_path: Path) -> None:
    async with (
        FakeLlama() as llama,
        run_batches(tmp_path, store_bytes=250_000, one=llama) as batches,
    ):
        data = upload_request(b"x" * 100_000)
        first, second = [await batches.gateway.connect() for _ in range(2)]
        for client in (first, second):
            await client.send(data[:50_000])
        await batches.until(lambda: len(contents(batches)) == 2)
        assert (await batches.upload(b"x" * 100_000)).error_code == "insufficient_storage"

        first.reset()
        await batches.until(lambda: len(contents(batches)) == 1)
        assert (await batches.upload(b"x" * 100_000)).status == 200
        await second.send(data[50_000:])
        assert (await second.response()).status == 200
        await batches.until(lambda: batches.store._reserved == 0)


async def test_results_wait_while_the_storage_is_full(tmp_path: Path) -> None:
    async with FakeLlama(slots=4) as llama, run_batches(tmp_path, one=llama) as batches:
        batch_id = await batches.start(lines(3))
        batches.store._free = lambda _: 0
        await batches.until(lambda: batches.metrics._write_failures.value)
        assert batches.worker.blocked

        batches.store._free = lambda _: 10**12
        batch = await batches.wait_status(batch_id, "completed")
        assert batch["request_counts"]["completed"] == 3
        assert len(await batches.content(batch["output_file_id"])) == 3


async def test_a_pod_that_connects_directly_needs_an_api_key(tmp_path: Path) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, keys=KEYS, one=llama) as batches:
        await batches.file_id(lines(1), ANN)
        async with await RawClient.connect(batches.port) as client:
            for headers in ((), ("X-Owner: ann",), ("Authorization: Bearer gateway-ann",)):
                assert (await client.request(get("/v1/files", *headers))).status == 401
        async with await RawClient.connect(batches.port) as client:
            head = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
            await client.send(head)
            assert (await client.response()).status == 401


@pytest.mark.parametrize("ends", ["cancelled", "expired"])
async def test_a_batch_that_has_filled_the_storage_can_end(tmp_path: Path, ends: str) -> None:
    async def respond(call: Call) -> None:
        await call.send_json({"content": "x" * 50_000})

    async with (
        FakeLlama(slots=4, script=respond) as llama,
        run_batches(tmp_path, store_bytes=250_000, one=llama) as batches,
    ):
        batch_id = await batches.start(lines(50))
        await batches.until(lambda: batches.worker.blocked)
        if ends == "cancelled":
            path = f"/v1/batches/{batch_id}/cancel"
            assert (await batches.gateway.request(post(path))).status == 200
        else:
            batches.clock.now += 86_401
        batch = await batches.wait_status(batch_id, ends)

        output = batch["output_file_id"]
        assert len(await batches.content(output)) == batch["request_counts"]["completed"] > 0
        for file_id in (output, batch["input_file_id"]):
            assert (await batches.get(f"/v1/files/{file_id}", method="DELETE")).status == 200
        assert (await batches.upload(lines(1))).status == 200


async def test_uploads_in_progress_are_limited(tmp_path: Path) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        data = upload_request(b"x" * 100_000)
        for _ in range(MAX_UPLOADS):
            client = await batches.gateway.connect()
            await client.send(data[:1000])
        await batches.until(lambda: batches.gateway.gateway.batches.uploads.total() == MAX_UPLOADS)

        response = await batches.upload(b"x" * 100_000)
        assert (response.status, response.error_code) == (503, "too_many_uploads")


async def test_uploads_of_one_key_leave_room_for_those_of_others(tmp_path: Path) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, keys=KEYS, one=llama) as batches:
        data = upload_request(b"x" * 100_000, BOB)
        for _ in range(MAX_UPLOADS):
            client = await batches.gateway.connect()
            await client.send(data[:1000])
        uploads = batches.gateway.gateway.batches.uploads
        await batches.until(lambda: uploads["bob"] == MAX_UPLOADS_OF_KEY)

        response = await batches.upload(b"x" * 100_000, BOB)
        assert (response.status, response.error_code) == (503, "too_many_uploads")
        assert (await batches.upload(b"x" * 100_000, ANN)).status == 200


async def test_batches_of_one_key_are_limited(tmp_path: Path) -> None:
    async with (
        FakeLlama(slots=8, script=never_respond) as llama,
        run_batches(tmp_path, keys=KEYS, one=llama) as batches,
    ):
        file_id = await batches.file_id(lines(1), ANN)
        for _ in range(MAX_UNFINISHED):
            assert (await batches.create(file_id, ANN)).status == 200
        assert (await batches.create(file_id, ANN)).error_code == "too_many_batches"
        other = await batches.file_id(lines(1), BOB)
        assert (await batches.create(other, BOB)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 1000,
        b'{"endpoint":"/v1/files","completion_window":"24h","input_file_id":"FILE"}',
        b'{"endpoint":"/v1/completions","completion_window":"soon","input_file_id":"FILE"}',
        b'{"endpoint":"/v1/completions","completion_window":"8d","input_file_id":"FILE"}',
        b'{"endpoint":"/v1/completions","completion_window":"24h","input_file_id":1}',
        VALID[:-1] + b',"metadata":{"a":1}}',
        VALID[:-1] + b',"output_expires_after":{"anchor":"created_at","seconds":1}}',
    ],
)
async def test_other_batches_are_rejected(tmp_path: Path, body: bytes) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        file_id = await batches.file_id(lines(1))
        request = post("/v1/batches", body.replace(b"FILE", file_id.encode()))
        response = await batches.gateway.request(request)

        assert (response.status, response.error_code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/files/../batches", 404),
        ("GET", "/v1/files/..%2f..%2fstate.db/content", 404),
        ("GET", "/v1/files/state.db/content", 404),
        ("GET", "/v1/files/x/content/y", 404),
        ("GET", "/v1/files/", 404),
        ("DELETE", "/v1/batches/x", 405),
        ("PUT", "/v1/files", 405),
        ("GET", "/v1/batches?limit=0", 400),
        ("GET", "/v1/batches?limit=" + "9" * 100, 400),
        ("GET", "/v1/files?order=random", 400),
        ("GET", "/v1/files?" + "a=1&" * 50, 400),
        ("GET", "/v1/files?after=nothing", 200),
        ("OPTIONS", "/v1/files", 204),
    ],
)
async def test_other_requests_are_rejected(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        assert (await batches.get(path, method=method)).status == status


async def test_a_gateway_without_batches_names_the_field(tmp_path: Path) -> None:
    async with FakeLlama() as llama, run_batches(tmp_path, one=llama) as batches:
        batches.gateway.configure({"replicas": 1})
        response = await batches.upload(lines(1))

        assert (response.status, response.error_code) == (404, "batches_disabled")
        assert b"spec.batches" in response.body
        batches.gateway.configure({"batches": {}})
        batches.gateway.upstreams["llm-batches"] = Port(1)
        assert (await batches.upload(lines(1))).error_code == "batches_unavailable"
        assert (await batches.get("/v1/batches")).error_code == "batches_unavailable"


async def test_a_large_file_is_received_in_little_memory(tmp_path: Path) -> None:
    size = 150 * MIB
    # While a line is read, some copies of it exist, and more of them the busier the machine is.
    line = request_line("a", text="x" * MIB)
    flags = ("--gateway", "127.0.0.1:1", "--data", str(tmp_path), "--no-access-log")
    async with run_process(*flags, command="batches") as batches:
        before = batches.peak_memory
        start, end = form(b"SPLIT").split(b"SPLIT")
        count = size // len(line)
        length = len(start) + count * len(line) + len(end)
        async with await RawClient.connect(batches.port) as client:
            head = form_request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % length)
            await client.send(head + start)
            for _ in range(count):
                await client.send(line)
            await client.send(end)
            response = await client.response()
            assert response.status == 200
            file = json.loads(response.body)
            assert file["bytes"] == count * len(line)
            # A client that reads slowly does not make it keep the file in memory.
            await client.send(get(f"/v1/files/{file['id']}/content"))
            await asyncio.sleep(0.2)
        assert batches.peak_memory - before < 16 * MIB
        batches.process.terminate()
