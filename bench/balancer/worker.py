"""Remote procedure calls to a worker process: one JSON line for each call and for each result."""

import asyncio
import gc
import itertools
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import uvloop

Commands = Mapping[str, Callable[..., Awaitable[Any]]]
_LIMIT = 1 << 24


class WorkerError(Exception):
    """A call raised an exception in the worker, or the worker exited."""


class Worker:
    """The calling side. Calls can be concurrent. Use it with `async with`."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LIMIT,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin
        # The worker exits at the end of its input.
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def call(self, command: str, **arguments: Any) -> Any:
        """Run a command in the worker; return its result. Raises WorkerError."""
        assert self._process.stdin
        number = next(self._numbers)
        self._pending[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"number": number, "command": command, "arguments": arguments})
        self._process.stdin.write(line.encode() + b"\n")
        return await self._pending[number]

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            reply = json.loads(line)
            future = self._pending.pop(reply["number"])
            if future.done():
                continue
            if "error" in reply:
                future.set_exception(WorkerError(f"{self.module}: {reply['error']}"))
            else:
                future.set_result(reply["result"])
        for future in self._pending.values():
            if not future.done():
                future.set_exception(WorkerError(f"{self.module} exited"))


def run(commands: Commands) -> None:
    """The worker's side: run commands until standard input ends."""
    uvloop.run(_serve(commands))


async def _serve(commands: Commands) -> None:
    reader = asyncio.StreamReader(limit=_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # A garbage collection during a sample would add to the measured delays.
    gc.collect()
    gc.freeze()
    gc.disable()
    tasks: set[asyncio.Task[None]] = set()
    async for line in reader:
        if not tasks:
            gc.collect()
        task = loop.create_task(_execute(commands, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


async def _execute(commands: Commands, call: Mapping[str, Any]) -> None:
    try:
        result = {"result": await commands[call["command"]](**call["arguments"])}
    except Exception:
        result = {"error": traceback.format_exc()}
    print(json.dumps({"number": call["number"], **result}), flush=True)
