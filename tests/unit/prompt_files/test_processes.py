"""Agents as processes: killed at any step, and several on one volume."""

import asyncio
import json
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from prompt_folders import PromptFolder
from prompt_states import IDENTITY, announced, name, state, write_part
from raw_http import RawClient, Response, get, post
from wait_until import until

KILLED_AT_EACH_STEP = """
import os, signal, sys, time
from pathlib import Path
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files.folder import Folder
from slotkeeper.prompt_files.record import Content
from slotkeeper.prompt_files.storage import Storage

root, identity, operation, size = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
name, now = f"{1:032x}", time.time_ns()

def run(path):
    folder = Folder(Storage(path, time.sleep), identity, Limits(10**9, 0), lambda: "")
    if operation == "commit":
        folder.commit(name + ".part", name, Content(size, 10, (1,), "c"), now)
    elif operation == "sweep":
        folder.sweep(now + 2 * 24 * 3600 * 10**9)
    elif operation == "prepare":
        folder.prepare(now)
    else:
        folder.remove(name)

def kill_before(step):
    calls = []
    def counted(call):
        def counting(*arguments, **options):
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(call)
            return call(*arguments, **options)
        return counting
    for each in ("open", "write", "fsync", "rename", "unlink", "utime", "mkdir", "rmdir"):
        setattr(os, each, counted(getattr(os, each)))

for step, path in enumerate(sorted(root.iterdir())):
    child = os.fork()
    if not child:
        kill_before(step)
        run(path)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(step)
        break
"""
"""Runs an operation on one folder after the other, and kills it before its first, second … call.
Prints the number of calls."""

MAX_STEPS = 60


def killed_at_each_step(root: Path, operation: str, size: int = 1000) -> list[Path]:
    """Returns the folders of which an operation has been killed, and the one where it was not."""
    result = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_STEP, root, IDENTITY, operation, str(size)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return sorted(root.iterdir())[: int(result.stdout) + 1]


def folders(root: Path) -> list[PromptFolder]:
    """Folders for the steps of an operation."""
    found = [PromptFolder(root / f"{step:02}") for step in range(MAX_STEPS)]
    for each in found:
        each.root.mkdir()
    return found


@pytest.mark.parametrize("earlier", [False, True])
def test_a_commit_that_is_killed_leaves_a_whole_folder(tmp_path: Path, earlier: bool) -> None:
    # Of the same size, so that a record of one would pass for that of the other.
    old, new = state(11, 1000, fill=b"o"), state(10, 1000, fill=b"n")
    harnesses = folders(tmp_path)
    for harness in harnesses:
        harness.prepare()
        if earlier:
            harness.save(1, old, tokens=11)
        write_part(harness.path, f"{name(1)}.part", new)

    killed = killed_at_each_step(tmp_path, "commit")

    assert len(killed) > 12
    contents = set()
    for harness in harnesses[: len(killed)]:
        listed = harness.listed()
        files = {each.name for each in harness.path.iterdir()}
        # With the clock of the process that was killed, the part is new.
        harness.folder().sweep((harness.path / ".used").stat().st_mtime_ns + 10**9)
        assert harness.listed() == listed
        rest = harness.files - {f"{name(1)}.part"}
        assert rest == ({name(1), f"{name(1)}.json"} if listed else set()), files
        content = (harness.path / name(1)).read_bytes() if listed else b""
        assert content in {old if earlier else b"", b"", new}
        assert [each.record.content.tokens for each in harness.folder().list().files] == {
            old: [11],
            b"": [],
            new: [10],
        }[content]
        contents.add(content)
        harness.save(1, new)
        assert harness.listed() == [1]
    # Before and after, and with an earlier file in between.
    assert contents == {old, b"", new} if earlier else {b"", new}
    for harness in harnesses:
        harness.close()


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("sweep", [[2, 1]]), ("remove", [[2, 1], [2]]), ("prepare", [[]])],
)
def test_another_operation_that_is_killed_is_completed_by_the_next_sweep(
    tmp_path: Path, operation: str, expected: list[list[int]]
) -> None:
    harnesses = folders(tmp_path)
    for harness in harnesses:
        harness.identity = "f" * 16
        harness.prepare()
        harness.save(1)
        harness.identity = IDENTITY
        if operation != "prepare":
            harness.prepare()
            harness.save(1)
            harness.save(2)

    killed = killed_at_each_step(tmp_path, operation)

    assert len(killed) > 3
    for harness in harnesses[: len(killed)]:
        harness.now += 2 * 24 * 3600 * 10**9
        harness.prepare()
        harness.folder().sweep(harness.now)
        assert harness.listed() in expected
        assert {each.name for each in harness.root.iterdir()} == {".lock", IDENTITY}
        assert len(harness.files) == 2 * len(harness.listed())
    for harness in harnesses:
        harness.close()


class AgentProcess:
    """`slotkeeper prompt-files`, after its preparation."""

    def __init__(self, root: Path, port: int, *flags: str) -> None:
        command = [sys.executable, "-m", "slotkeeper", "prompt-files", "--folder", str(root)]
        command += ["--identity", IDENTITY, "--min-free-percent", "0", *flags]
        self._command = [*command, "--listen", f"127.0.0.1:{port}"]
        self.port = port
        subprocess.run([*command, "--prepare"], check=True, timeout=30)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert await self.end(self.process.terminate) == 0, self.log

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stderr=asyncio.subprocess.PIPE
        )
        self.log = ""
        assert self.process.stderr
        while "listening on" not in self.log:
            line = (await asyncio.wait_for(self.process.stderr.readline(), 30)).decode()
            assert line, self.log
            self.log += line

    async def end(self, send: Any) -> int:
        send()
        _, rest = await asyncio.wait_for(self.process.communicate(), 30)
        self.log += rest.decode()
        return int(self.process.returncode or 0)

    async def request(self, data: bytes) -> Response:
        async with await RawClient.connect(self.port) as client, asyncio.timeout(30):
            return await client.request(data)

    async def get(self, path: str) -> Any:
        return json.loads((await self.request(get(path))).body)

    async def commit(self, folder: Path, number: int, content: bytes) -> Response:
        """Write a file as llama-server does, and commit it."""
        write_part(folder, f"{name(number)}.part", content)
        tree = announced(content, temporary=f"{name(number)}.part", name=name(number))
        return await self.request(post("/commit", json.dumps(tree).encode()))

    async def read(self, folder: Path, number: int) -> bytes | None:
        """Use a file and restore it; None if the agent does not have it."""
        response = await self.request(post("/use", json.dumps({"name": name(number)}).encode()))
        return (folder / name(number)).read_bytes() if response.status == 200 else None


def content_of(number: int) -> bytes:
    """What is saved under this number: its size and its bytes differ from all others."""
    return state(10, 100_000 + number, fill=bytes([number % 251]))


async def test_an_agent_killed_at_random_lists_whole_files_only(
    tmp_path: Path, unused_ports: list[int]
) -> None:
    rng = random.Random(1)
    folder = tmp_path / IDENTITY
    agent = AgentProcess(tmp_path, unused_ports[0])
    committed: set[int] = set()

    async def save(first: int) -> None:
        for number in range(first, first + 1000):
            if (await agent.commit(folder, number, content_of(number))).status == 200:
                committed.add(number)

    for kill in range(6):
        await agent.start()
        saving = asyncio.ensure_future(save(kill * 1000))
        count = len(committed) + rng.randrange(12)
        await until(lambda count=count: len(committed) >= count)  # type: ignore[misc]
        assert await agent.end(agent.process.kill) == -9
        with suppress(OSError, asyncio.IncompleteReadError):
            await saving
    async with agent:
        listed = {int(each["name"], 16) for each in (await agent.get("/files"))["files"]}
        # One more may have been committed whose response was lost.
        assert committed <= listed
        assert len(listed - committed) <= 6
        for number in listed:
            assert await agent.read(folder, number) == content_of(number)
    left = {each.name for each in folder.iterdir() if each.suffix != ".part"}
    assert left == {".used", *(f"{name(each)}{end}" for each in listed for end in ("", ".json"))}
    assert len(committed) > 6


async def test_two_agents_share_a_volume(tmp_path: Path, unused_ports: list[int]) -> None:
    """Of a limit of 10 files: each file is whole or not there, whichever agent removes it."""
    folder = tmp_path / IDENTITY
    limit = ("--size-limit", "1005000")
    restored = 0

    async def replica(agent: AgentProcess, other: AgentProcess, first: int) -> None:
        nonlocal restored
        for number in range(first, first + 25):
            size = {"bytes": len(content_of(number))}
            room = await agent.request(post("/room", json.dumps(size).encode()))
            assert json.loads(room.body)["ok"]
            response = await agent.commit(folder, number, content_of(number))
            assert response.status == 200, response.body
            content = await other.read(folder, number)
            assert content in {None, content_of(number)}
            restored += content is not None

    async with (
        AgentProcess(tmp_path, unused_ports[0], *limit) as one,
        AgentProcess(tmp_path, unused_ports[1], *limit) as two,
    ):
        await asyncio.gather(replica(one, two, 0), replica(two, one, 100))
        files, same = await one.get("/files"), await two.get("/files")
        assert files | {"freeBytes": same["freeBytes"]} == same
        assert files["usedBytes"] <= files["limitBytes"]
        assert 8 <= len(files["files"]) <= 10
    assert restored > 25


@pytest.fixture
def unused_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, two)]
