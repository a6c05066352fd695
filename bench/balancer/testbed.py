"""The testbed: fake replicas, a load generator, and all proxies between them at the same time."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.systems import Pick, ProxySetup, System
from bench.balancer.worker import Worker


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """A started system: the ports for clients, and the proxy's process id, None without a proxy."""

    name: str
    ports: list[int]
    pick: Pick
    pid: int | None
    setup: ProxySetup
    headers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Testbed:
    """The processes that a measurement uses."""

    fakes: Worker
    load: Worker
    running: list[RunningSystem]
    replicas: list[int]
    """Ports."""


@asynccontextmanager
async def testbed(
    replicas: int, options: ReplicaOptions, systems: Sequence[System]
) -> AsyncIterator[Testbed]:
    """Start this number of fake replicas with all `systems` in front of them."""
    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(Worker("bench.balancer.fake_server"))
        load = await stack.enter_async_context(Worker("bench.balancer.load"))
        ports = await fakes.call("serve", replicas=replicas, **asdict(options))
        running = [
            await stack.enter_async_context(start(system, ports, options.slots))
            for system in systems
        ]
        yield Testbed(fakes, load, running, ports)


@asynccontextmanager
async def start(
    system: System,
    replicas: list[int],
    slots: int,
    *,
    environment: Mapping[str, str] | None = None,
    joined: int | None = None,
) -> AsyncIterator[RunningSystem]:
    """Start a system in front of `replicas` (ports) and wait until it is ready.

    Its output is written to a file. A system that counts replicas is ready when it has `joined` of
    them (default: all).
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    setup = ProxySetup(free_port(), free_port(), tuple(replicas), slots, folder)
    try:
        if system.command is None:
            yield RunningSystem(system.name, replicas, system.pick, None, setup)
            return
        for name, text in system.files(setup).items():
            (folder / name).write_text(text)
        with (folder / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *system.command(setup),
                stdout=output,
                stderr=output,
                env={**os.environ, **system.environment, **(environment or {})},
            )
        try:
            expected = len(replicas) if joined is None else joined
            await _wait_until_ready(system, setup, process, expected)
            yield RunningSystem(
                system.name,
                [setup.port],
                system.pick,
                process.pid,
                setup,
                system.headers(setup),
            )
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def get_json(port: int, path: str) -> Any:
    """Send `GET path` to a port of the loopback interface; return the JSON. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
    response = await reader.read()
    writer.close()
    return json.loads(response.partition(b"\r\n\r\n")[2])


async def _wait_until_ready(
    system: System, setup: ProxySetup, process: asyncio.subprocess.Process, joined: int
) -> None:
    for _ in range(round(system.start_seconds * 100)):
        if process.returncode is not None:
            raise RuntimeError(f"{system.name} exited: {(setup.folder / 'output').read_text()}")
        try:
            if not system.counts_replicas:
                _, writer = await asyncio.open_connection("127.0.0.1", setup.port)
                writer.close()
                return
            demand = await get_json(setup.metrics_port, "/autoscaling")
            if demand["replicas"] == joined:
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise RuntimeError(f"{system.name} is not ready after {system.start_seconds} s")
