"""A real `slotkeeper balancer` or `slotkeeper gateway` process."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raw_http import RawClient, get


class Process:
    """A running process, and what it has logged so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.logged: list[dict[str, Any]] = []
        self.port = 0
        self.metrics_port = 0

    async def wait_log(self, part: str) -> dict[str, Any]:
        """Return the next log line whose message contains `part`."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            self.logged.append(json.loads(line))
            if part in self.logged[-1].get("message", ""):
                return self.logged[-1]
        raise AssertionError(f"it ended without logging {part!r}: {self.logged}")

    @property
    def peak_memory(self) -> int:
        """Largest resident size so far, in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM: this needs Linux")

    async def readiness(self) -> int:
        async with await RawClient.connect(self.metrics_port) as client:
            return (await client.request(get("/ready"))).status


@asynccontextmanager
async def run_process(*argv: str, command: str = "balancer", **env: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotkeeper", command),
        *("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json", *argv),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | env,
    )
    try:
        async with asyncio.timeout(30):
            balancer = Process(started)
            words = (await balancer.wait_log("listening on"))["message"].replace(",", "").split()
            balancer.port, balancer.metrics_port = (
                int(words[at].rpartition(":")[2]) for at in (2, 5)
            )
            yield balancer
            await started.wait()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
