"""A fake llama-server with scripted responses: slots, streams, stalls, resets, loading."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(eq=False)
class Call:
    """One request that reached the server, and its response."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    proceed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the test, for scripts that wait for it."""
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has closed its connection before the end of the response."""
    free_slot: Callable[[], None] = lambda: None
    """To be called before the last bytes of the response are sent, as llama-server does."""

    async def send_head(self, *, chunked: bool = True, length: int = 0, extra: str = "") -> None:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
        await self.write(
            f"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\n"
            f"Content-Type: text/event-stream\r\n{extra}{framing}\r\n\r\n".encode()
        )

    async def send_event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        self.free_slot()
        await self.write(b"0\r\n\r\n")

    async def send_json(self, tree: object, status: str = "200 OK") -> None:
        """Send a complete response."""
        body = json.dumps(tree).encode()
        self.free_slot()
        await self.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def write(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError  # uvloop would raise RuntimeError
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


async def echo(call: Call) -> None:
    """Respond at once, with the request's body."""
    await call.send_json({"content": "hello", "echo": call.body.decode(errors="replace")})


async def stream_two_events(call: Call) -> None:
    """Stream "first", wait for `proceed`, stream "last"."""
    await call.send_head()
    await call.send_event("first")
    await call.proceed.wait()
    await call.send_event("last")
    await call.end()


async def never_respond(call: Call) -> None:
    await call.disconnected.wait()


async def serve_metrics(call: Call) -> None:
    """Respond with some metrics, in llama-server's format."""
    series = {
        "prompt_tokens_total": ("counter", 20),
        "n_decode_total": ("counter", 610),
        "prompt_tokens_seconds": ("gauge", 150),
        "requests_processing": ("gauge", 7),
    }
    lines = [
        f"# HELP llamacpp:{name} help\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n"
        for name, (kind, value) in series.items()
    ]
    body = "".join(lines).encode()
    await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def send_garbage(call: Call) -> None:
    await call.write(b"\x00\x01garbage\r\n\r\n")


class FakeLlama:
    """Serves `script` with `slots` slots on a free port of the loopback interface."""

    def __init__(
        self,
        slots: int = 1,
        script: Script = echo,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.tls = tls
        self.slots = slots
        self.script = script
        self.loading = False
        self.tasks: Callable[[Call], int] = lambda _: 1
        """Slots that a request takes, at most all of them."""
        self.overcommitted = 0
        """Requests that found too few free slots."""
        self.busy = 0
        self.max_busy = 0
        self.connections = 0
        self.state_scripts: dict[str, Script] = {}
        """Scripts for GET requests, by path."""
        self.slot_action: Script = never_respond
        """Script for saving and restoring slots, which occupies none."""
        self.health_polls = 0
        self.slots_polls = 0
        self.calls: list[Call] = []
        self.frees_slots = asyncio.Event()
        """While unset, slots of disconnected clients stay busy, as in the middle of a step."""
        self.frees_slots.set()
        self.port = 0
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def name(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._on_connection, self.host, self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and reset the open ones."""
        if self._server:
            self._server.close()
        # Connections accepted just before are reported in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_calls(self, count: int) -> list[Call]:
        """Wait for `count` calls; return all of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)
        return self.calls

    async def proceed(self, number: int) -> None:
        """Let a call continue when it has arrived; `number`: counted from 0."""
        calls = await self.wait_calls(number + 1)
        calls[number].proceed.set()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _serve_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head[:-4].split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        call = Call(method, path, headers, body, writer)
        if method == "GET":
            await self._serve_state(call)
        elif path.startswith("/slots/"):
            await self.slot_action(call)
        else:
            await self._serve_inference(call, reader)
        return headers.get("connection") != "close"

    async def _serve_state(self, call: Call) -> None:
        """Serve /health, /slots, or what describes the model."""
        self.health_polls += call.path == "/health"
        self.slots_polls += call.path == "/slots"
        if script := self.state_scripts.get(call.path):
            await script(call)
        elif self.loading:
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            await call.send_json({"error": error}, "503 Service Unavailable")
        elif call.path == "/slots":
            slots = [
                {"id": number, "n_ctx": 512, "is_processing": number < self.busy}
                for number in range(self.slots)
            ]
            await call.send_json(slots)
        elif call.path == "/v1/models":
            meta = {"n_ctx_train": 8192, "n_params": 9_639_552}
            await call.send_json(
                {"models": [{"capabilities": ["completion"]}], "data": [{"id": "x", "meta": meta}]}
            )
        elif call.path == "/props":
            await call.send_json(
                {
                    "default_generation_settings": {"params": {"temperature": 0.8}},
                    "chat_template": "{{ messages }}",
                    "modalities": {"vision": False},
                    "model_path": "/models/x.gguf",
                    "build_info": "b11669-Debian",
                }
            )
        elif call.path == "/metrics":
            await serve_metrics(call)
        else:
            await call.send_json({"status": "ok"})

    async def _serve_inference(self, call: Call, reader: asyncio.StreamReader) -> None:
        slots = min(self.slots, self.tasks(call))
        if self.busy + slots > self.slots:
            self.overcommitted += 1
        self.busy += slots
        self.max_busy = max(self.max_busy, self.busy)
        call.free_slot = self._slot(slots)
        async with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
        script = asyncio.ensure_future(self.script(call))
        disconnect = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({script, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if script.done():
                call.free_slot()
                await script
            else:
                call.disconnected.set()
                await self.frees_slots.wait()
                call.free_slot()
                raise ConnectionResetError
        finally:
            await _cancel(script)
            await _cancel(disconnect)

    def _slot(self, slots: int) -> Callable[[], None]:
        """Return a function that frees these slots, once."""
        occupied = [True]

        def free() -> None:
            if occupied:
                occupied.clear()
                self.busy -= slots

        return free


async def _cancel(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)
