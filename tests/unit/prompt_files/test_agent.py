import asyncio
import errno
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from prompt_folders import PromptFolder
from prompt_states import COMPATIBLE, IDENTITY, SECOND_NS, announced, name, state, write_part
from raw_http import RawClient, Response, get, post
from slotkeeper.prompt_files.agent import MAX_PENDING, Agent, http_limits
from slotkeeper.prompt_files.folder import Folder
from slotkeeper.prompt_files.metrics import Metrics
from slotkeeper.wire.server import Server
from wait_until import until


@dataclass
class RunningAgent:
    """An agent with its address."""

    agent: Agent
    folder: Folder
    harness: PromptFolder
    port: int

    async def request(self, data: bytes) -> Response:
        async with await RawClient.connect(self.port) as client, asyncio.timeout(10):
            return await client.request(data)

    async def get(self, path: str) -> Any:
        response = await self.request(get(path))
        assert response.status == 200, response.body
        return json.loads(response.body)

    async def post(self, path: str, tree: Any) -> tuple[int, Any]:
        response = await self.request(post(path, json.dumps(tree).encode()))
        return response.status, json.loads(response.body)

    async def commit(self, number: int, content: bytes | None = None, **changes: Any) -> int:
        """Save a slot and commit it; returns the status."""
        content = content or state()
        part = f"{name(number + 1000)}.part"
        write_part(self.harness.path, part, content, self.harness.now)
        tree = announced(content, temporary=part, name=name(number)) | changes
        status, _ = await self.post("/commit", tree)
        return status

    async def metric(self, metric: str, **labels: str) -> float:
        response = await self.request(get("/metrics"))
        [value] = [
            sample.value
            for family in text_string_to_metric_families(response.body.decode())
            for sample in family.samples
            if sample.name == f"slotkeeper_prompt_files_{metric}" and sample.labels == labels
        ]
        return value


@asynccontextmanager
async def run_agent(harness: PromptFolder) -> AsyncIterator[RunningAgent]:
    folder = harness.prepare()
    seconds = iter(range(10**6))
    metrics = Metrics(harness.limits.max_bytes)

    def time_ns() -> int:
        harness.now += SECOND_NS
        return harness.now

    agent = Agent(folder, metrics, lambda: next(seconds) / 8, time_ns)
    server = Server(agent.handle, http_limits())
    _, port = await server.listen("127.0.0.1", 0)
    try:
        yield RunningAgent(agent, folder, harness, port)
    finally:
        await server.close()
        await agent.close()


@pytest.fixture
async def agent(harness: PromptFolder) -> AsyncIterator[RunningAgent]:
    async with run_agent(harness) as running:
        yield running


async def test_a_saved_slot_is_committed_listed_used_and_deleted(agent: RunningAgent) -> None:
    assert await agent.post("/room", {"bytes": 1000}) == (200, {"ok": True, "removed": []})
    assert await agent.commit(1) == 200
    listing = await agent.get("/files")
    [file] = listing.pop("files")
    assert file.pop("savedAt") == file["usedAt"]
    assert file.pop("usedAt") == agent.harness.now // SECOND_NS
    assert file == announced(state(), name=name(1))
    assert listing["identity"] == IDENTITY
    assert listing["limitBytes"] == agent.harness.limits.max_bytes
    assert 1000 < listing["usedBytes"] < 1200
    assert listing["freeBytes"] > 0

    assert await agent.post("/use", {"name": name(1)}) == (200, {"bytes": 1000, "seconds": 0.125})
    [used] = (await agent.get("/files"))["files"]
    assert used["usedAt"] == agent.harness.now // SECOND_NS > used["savedAt"]

    response = await agent.request(get(f"/files/{name(1)}", method="DELETE"))
    assert json.loads(response.body) == {"removed": True}
    response = await agent.request(get(f"/files/{name(1)}", method="DELETE"))
    assert json.loads(response.body) == {"removed": False}
    assert (await agent.get("/files"))["files"] == []
    assert await agent.metric("removed_total", reason="requested") == 1


async def test_a_file_that_is_gone_is_not_found(agent: RunningAgent) -> None:
    status, tree = await agent.post("/use", {"name": name(1)})

    assert (status, tree["error"]["code"]) == (404, "not_found")


async def test_a_file_that_is_not_what_was_announced_is_a_conflict(agent: RunningAgent) -> None:
    tree = announced(state(), temporary=f"{name(1)}.part", name=name(1), bytes=1001)
    write_part(agent.harness.path, f"{name(1)}.part", state())

    status, answer = await agent.post("/commit", tree)

    assert (status, answer["error"]["message"]) == (409, "1000 bytes instead of 1001")
    assert agent.harness.files == set()
    assert await agent.metric("removed_total", reason="invalid") == 1


async def test_a_file_that_does_not_fit_gets_no_room(agent: RunningAgent) -> None:
    tree = {"bytes": agent.harness.limits.max_bytes + 1}

    expected = {"ok": False, "removed": [], "reason": "size_limit"}
    assert await agent.post("/room", tree) == (200, expected)


async def test_errors_of_the_disk_are_reported_and_counted(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, status, code in (
        (errno.ENOSPC, 507, "disk_full"),
        (errno.EIO, 500, "disk_error"),
    ):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, "it failed")

        monkeypatch.setattr(agent.folder, "make_room", fail)
        assert await agent.post("/room", {"bytes": 1}) == (
            status,
            {"error": {"message": "it failed", "type": "server_error", "code": code}},
        )

    def late(*_: object) -> None:
        raise TimeoutError("too long")

    monkeypatch.setattr(agent.folder, "make_room", late)
    assert (await agent.post("/room", {"bytes": 1}))[0] == 503
    assert await agent.metric("errors_total") == 3


async def test_a_defect_is_an_error_of_one_request(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(agent.folder, "make_room", fail)
        assert (await agent.post("/room", {"bytes": 1}))[0] == 500
    assert (await agent.post("/room", {"bytes": 1}))[0] == 200


VALID = announced(state(), temporary=f"{name(1)}.part", name=name(1))


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("/room", []),
        ("/room", {}),
        ("/room", {"bytes": "1"}),
        ("/room", {"bytes": True}),
        ("/room", {"bytes": 0}),
        ("/room", {"bytes": 2**64}),
        ("/use", {}),
        ("/use", {"name": "../" + name(1)}),
        ("/use", {"name": name(1) + "\n"}),
        ("/use", {"name": name(1).upper()[:-1] + "A"}),
        ("/commit", {}),
        ("/commit", VALID | {"name": "x"}),
        ("/commit", VALID | {"temporary": name(1)}),
        ("/commit", VALID | {"temporary": f"../{name(1)}.part"}),
        ("/commit", VALID | {"bytes": -1}),
        ("/commit", VALID | {"prefixes": [[[1]]]}),
        ("/commit", VALID | {"compatible": "x"}),
    ],
)
async def test_a_malformed_request_is_rejected(agent: RunningAgent, path: str, tree: Any) -> None:
    status, answer = await agent.post(path, tree)

    assert (status, answer["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"bytes":NaN}', b"[" * 5000])
async def test_a_body_that_is_no_json_is_rejected(agent: RunningAgent, body: bytes) -> None:
    assert (await agent.request(post("/room", body))).status == 400


async def test_a_long_body_is_rejected(agent: RunningAgent) -> None:
    assert (await agent.request(post("/room", b" " * 20_000))).status == 413


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/files/"), 404),
        (get("/files/..%2f", method="DELETE"), 404),
        (get("/files/x", method="DELETE"), 404),
        (get(f"/files/{name(1)}"), 405),
        (post("/files"), 405),
        (get("/room"), 405),
        (get("/done"), 404),
        (get("/wait-done?seconds=x"), 400),
        (get("/wait-done?seconds=nan"), 400),
        (get("/wait-done?seconds=-1"), 400),
    ],
)
async def test_other_requests_are_errors(agent: RunningAgent, request_: bytes, status: int) -> None:
    assert (await agent.request(request_)).status == status


async def test_waiting_ends_when_the_balancer_is_done(agent: RunningAgent) -> None:
    assert await agent.get("/wait-done") == {"done": False}
    assert await agent.get("/wait-done?seconds=0.01") == {"done": False}
    waiting = [asyncio.ensure_future(agent.get("/wait-done?seconds=60")) for _ in range(2)]
    await until(lambda: len(agent.agent._long_poll) == 2)

    assert await agent.post("/done", {}) == (200, {"done": True})

    assert await asyncio.gather(*waiting) == [{"done": True}] * 2
    assert await agent.get("/wait-done?seconds=60") == {"done": True}


async def test_a_wait_is_limited_to_a_minute(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.agent._long_poll, "_max_seconds", 0.01)

    assert await agent.get("/wait-done?seconds=1e300") == {"done": False}


async def test_a_slow_disk_rejects_further_requests_and_delays_no_others(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def wait(*_: object) -> int:
        assert released.wait(10)
        return 1

    monkeypatch.setattr(agent.folder, "use", wait)
    used = [
        asyncio.ensure_future(agent.post("/use", {"name": name(each)}))
        for each in range(MAX_PENDING - 1)
    ]
    try:
        await until(lambda: len(agent.agent._tasks) == MAX_PENDING - 1)

        assert (await agent.post("/room", {"bytes": 1}))[0] == 200
        used.append(asyncio.ensure_future(agent.post("/use", {"name": name(0)})))
        await until(lambda: len(agent.agent._tasks) == MAX_PENDING)
        assert (await agent.post("/room", {"bytes": 1}))[0] == 503
        assert (await agent.post("/done", {}))[0] == 200
    finally:
        released.set()
    assert {status for status, _ in await asyncio.gather(*used)} == {200}


async def test_a_reading_is_given_up_when_its_client_disconnects(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, disconnected = threading.Event(), threading.Event()
    given_up: list[bool] = []

    def wait(_name: str, _now: int, is_given_up: Any) -> int:
        given_up.append(is_given_up())
        reading.set()
        assert disconnected.wait(10)
        given_up.append(is_given_up())
        return 1

    monkeypatch.setattr(agent.folder, "use", wait)
    async with await RawClient.connect(agent.port) as client:
        await client.send(post("/use", json.dumps({"name": name(1)}).encode()))
        await until(reading.is_set)
    async with await RawClient.connect(agent.port) as client:
        # It is accepted after the other connection has ended.
        assert (await client.request(get("/wait-done"))).status == 200
    await asyncio.sleep(0)
    disconnected.set()
    await until(lambda: not len(agent.agent._tasks))

    assert given_up == [False, True]


async def test_a_sweep_updates_the_metrics(agent: RunningAgent) -> None:
    await agent.commit(1)
    await agent.commit(2)
    (agent.harness.path / f"{name(1)}.json").unlink()

    await agent.agent.sweep()

    assert await agent.metric("files") == 1
    assert await agent.metric("bytes") > 1000
    assert await agent.metric("limit_bytes") == agent.harness.limits.max_bytes
    assert await agent.metric("disk_free_bytes") > 0
    assert await agent.metric("removed_total", reason="incomplete") == 1
    assert await agent.metric("errors_total") == 0


async def test_the_list_is_of_those_that_can_be_restored(agent: RunningAgent) -> None:
    await agent.commit(1, compatible="1")
    await agent.commit(2, compatible=COMPATIBLE)
    agent.harness.model = "replaced"

    assert (await agent.get("/files"))["files"] == []
