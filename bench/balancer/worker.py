"""A process of its own that does what it is told: one JSON line a call, one a result."""

import asyncio
import gc
import itertools
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import uvloop

Verbs = Mapping[str, Callable[..., Awaitable[Any]]]
_LIMIT = 1 << 24


class WorkerError(Exception):
    """A call failed in the worker, or the worker ended."""


class Worker:
    """The side that tells. Calls may overlap. Use it in `async with`."""

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
        # The end of its input is the worker's end.
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def call(self, verb: str, **arguments: Any) -> Any:
        """What `verb` returns. Raises WorkerError."""
        assert self._process.stdin
        number = next(self._numbers)
        self._pending[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"number": number, "verb": verb, "arguments": arguments})
        self._process.stdin.write(line.encode() + b"\n")
        return await self._pending[number]

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            said = json.loads(line)
            future = self._pending.pop(said["number"])
            if future.done():
                continue
            if "error" in said:
                future.set_exception(WorkerError(f"{self.module}: {said['error']}"))
            else:
                future.set_result(said["result"])
        for future in self._pending.values():
            if not future.done():
                future.set_exception(WorkerError(f"{self.module} ended"))


def run(verbs: Verbs) -> None:
    """The side that is told: until its input ends."""
    uvloop.run(_serve(verbs))


async def _serve(verbs: Verbs) -> None:
    reader = asyncio.StreamReader(limit=_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # A collection in the middle of a piece would be measured as somebody's delay.
    gc.collect()
    gc.freeze()
    gc.disable()
    tasks: set[asyncio.Task[None]] = set()
    async for line in reader:
        if not tasks:
            gc.collect()
        task = loop.create_task(_do(verbs, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


async def _do(verbs: Verbs, told: Mapping[str, Any]) -> None:
    try:
        result = {"result": await verbs[told["verb"]](**told["arguments"])}
    except Exception:
        result = {"error": traceback.format_exc()}
    print(json.dumps({"number": told["number"], **result}), flush=True)
