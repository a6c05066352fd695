"""A llama-server that does what a test says: slots, streams, stalls, resets, loading."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(eq=False)
class Call:
    """One request that reached the server, and how its answer goes on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    go: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    free: Callable[[], None] = lambda: None
    """Gives the slot back: before the answer's last bytes are sent, as llama-server does."""

    async def head(self, *, chunked: bool = True, length: int = 0, extra: str = "") -> None:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
        await self.write(
            f"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\n"
            f"Content-Type: text/event-stream\r\n{extra}{framing}\r\n\r\n".encode()
        )

    async def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        self.free()
        await self.write(b"0\r\n\r\n")

    async def whole(self, tree: object, status: str = "200 OK") -> None:
        body = json.dumps(tree).encode()
        self.free()
        await self.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def write(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError  # uvloop would say it as a RuntimeError
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


async def answer_at_once(call: Call) -> None:
    await call.whole({"content": "hello", "echo": call.body.decode(errors="replace")})


async def when_told(call: Call) -> None:
    """Stream one event, wait to be told, stream another."""
    await call.head()
    await call.event("first")
    await call.go.wait()
    await call.event("last")
    await call.end()


class FakeLlama:
    """Serves `script` with `slots` slots on a free port of the loopback.

    `over_commits` counts requests that found no slot; `lets_go` unset keeps the slots of requests
    whose client has gone busy, as a llama-server in the middle of a step does.
    """

    def __init__(self, slots: int = 1, script: Script = answer_at_once) -> None:
        self.slots = slots
        self.script = script
        self.loading = False
        self.over_commits = 0
        self.most_at_once = 0
        self.busy = 0
        self.connections = 0
        self.looks = 0
        self.calls: list[Call] = []
        self.lets_go = asyncio.Event()
        self.lets_go.set()
        self.port = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone: refuse connections and reset those that there are."""
        if self._server:
            self._server.close()
        # What was accepted just before is told of in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def called(self, count: int) -> list[Call]:
        """The calls, once there are `count` of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)
        return self.calls

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head[:-4].split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        call = Call(method, path, headers, body, writer)
        if method == "GET":
            await self._about_itself(call)
        else:
            await self._decode(call, reader)
        return headers.get("connection") != "close"

    async def _about_itself(self, call: Call) -> None:
        if self.loading:
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            await call.whole({"error": error}, "503 Service Unavailable")
        elif call.path == "/slots":
            self.looks += 1
            slots = [
                {"id": number, "n_ctx": 512, "is_processing": number < self.busy}
                for number in range(self.slots)
            ]
            await call.whole(slots)
        else:
            await call.whole({"status": "ok"})

    async def _decode(self, call: Call, reader: asyncio.StreamReader) -> None:
        if self.busy >= self.slots:
            self.over_commits += 1
        self.busy += 1
        self.most_at_once = max(self.most_at_once, self.busy)
        call.free = self._free_once()
        async with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
        script = asyncio.ensure_future(self.script(call))
        hung_up = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({script, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if script.done():
                call.free()
                await script
            else:
                call.gone.set()
                await self.lets_go.wait()
                call.free()
                raise ConnectionResetError
        finally:
            await _end(script)
            await _end(hung_up)

    def _free_once(self) -> Callable[[], None]:
        held = [True]

        def free() -> None:
            if held:
                held.clear()
                self.busy -= 1

        return free


async def _end(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)
