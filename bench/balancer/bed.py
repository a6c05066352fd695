"""Fakes, a load generator and proxies between them, all up at once."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.balancer.fake_server import Kind
from bench.balancer.systems import Pick, Place, System
from bench.balancer.worker import Worker


@dataclass(frozen=True, slots=True)
class Running:
    """A system in its place: where clients go, and which process is the proxy, if there is one."""

    name: str
    ports: list[int]
    pick: Pick
    pid: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class Bed:
    """What a measure has to work with."""

    fakes: Worker
    load: Worker
    running: list[Running]
    replicas: list[int]


@asynccontextmanager
async def bed(replicas: int, kind: Kind, systems: Sequence[System]) -> AsyncIterator[Bed]:
    """So many fakes of this kind with all `systems` in front of them."""
    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(Worker("bench.balancer.fake_server"))
        load = await stack.enter_async_context(Worker("bench.balancer.load"))
        ports = await fakes.call("serve", replicas=replicas, **asdict(kind))
        running = [
            await stack.enter_async_context(start(system, ports, kind.slots)) for system in systems
        ]
        yield Bed(fakes, load, running, ports)


@asynccontextmanager
async def start(
    system: System,
    replicas: list[int],
    slots: int,
    *,
    environment: Mapping[str, str] | None = None,
    joined: int | None = None,
) -> AsyncIterator[Running]:
    """A system in front of `replicas` (ports), ready; what it says goes to a file of its own.

    One that counts replicas is ready when `joined` of them have; unset: all.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    place = Place(free_port(), free_port(), tuple(replicas), slots, folder)
    try:
        if system.command is None:
            yield Running(system.name, replicas, system.pick, None, place)
            return
        for name, text in system.files(place).items():
            (folder / name).write_text(text)
        with (folder / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *system.command(place),
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        try:
            expected = len(replicas) if joined is None else joined
            await _ready(system, place, process, expected)
            yield Running(system.name, [place.port], system.pick, process.pid, place)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def get_json(port: int, path: str) -> Any:
    """What `GET path` on a port of the loopback answers. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def _ready(
    system: System, place: Place, process: asyncio.subprocess.Process, joined: int
) -> None:
    for _ in range(1000):
        if process.returncode is not None:
            raise RuntimeError(f"{system.name} ended: {(place.folder / 'output').read_text()}")
        try:
            if not system.counts_replicas:
                _, writer = await asyncio.open_connection("127.0.0.1", place.port)
                writer.close()
                return
            said = await get_json(place.metrics_port, "/autoscaling")
            if said["replicas"] == joined:
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise RuntimeError(f"{system.name} is not ready after 10 s")
