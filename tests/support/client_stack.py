"""llama-servers, balancers and a gateway on the loopback interface, for client libraries.

Client libraries block, so the balancers and the gateway run in a loop of another thread.
"""

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvloop

from balancer_harness import Balancer, run_balancer
from client_servers import (
    AT_ZERO,
    CHAT,
    CONTEXT,
    GATEWAY,
    KEY,
    KEY_NAME,
    SERVERS,
    TEMPLATE,
    ClientServer,
)
from fake_llama import Call, FakeLlama
from real_llama_server import write_model
from running_gateway import RunningGateway, run_gateway, server_manifest, status
from slotkeeper.api.paths import PROXIED
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.llamacpp.argv import Chat, Embeddings, Serving, argv
from slotkeeper.wire import http_get
from wait_until import until

COMMAND = "SLOTKEEPER_LLAMA_SERVER"
"""Environment variable with the command of llama-server; by default the one on the PATH."""
MODEL = "SLOTKEEPER_TEST_MODEL"
"""Environment variable with the path of the model, as llama-server sees it."""
BROKEN = "broken"
"""A model whose server fails in the middle of each stream. On the loopback interface only."""
SECONDS = 600.0
_ROOT = Path(__file__).resolve().parents[2]


def llama_server() -> list[str] | None:
    """Return the command of llama-server; None if there is none."""
    command = os.environ.get(COMMAND)
    if command:
        return shlex.split(command)
    path = shutil.which("llama-server")
    return [path] if path else None


@dataclass(eq=False)
class Replica:
    """A llama-server's address, as the harness of a balancer expects it."""

    port: int
    loading: bool = False

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def run_llama_server(command: list[str], server: ClientServer, model: str) -> Iterator[Replica]:
    """Run a llama-server with the arguments that the operator sets."""
    port = _free_port()
    serving = Serving(
        model_path=model,
        alias=server.name,
        slots=2,
        context_per_slot=CONTEXT,
        cache_ram_mib=0,
        host="127.0.0.1",
        port=port,
        chat=Chat(template=TEMPLATE if server.generates else None),
        embeddings=None if server.generates else Embeddings(server.pooling),
        threads=1,
        extra=server.extra_args,
    )
    process = subprocess.Popen(
        [*command, *argv(serving)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_ready(process, port)
        yield Replica(port)
    finally:
        process.terminate()
        process.wait()


class Stack:
    """A gateway in front of these servers; `replicas` by the name of the server."""

    def __init__(self, replicas: dict[str, Replica]) -> None:
        self._replicas = replicas
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stop = asyncio.Event()
        self._started: Future[RunningGateway] = Future()
        self._balancers: dict[str, Balancer] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._running = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        self._running.add_done_callback(self._on_done)
        self.gateway = self._started.result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._running.result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop of the gateway; return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def sleep(self) -> None:
        """Scale the server that is at zero to zero again. Its next queued request wakes it."""
        self.call(self._to_zero())

    def wait_idle(self) -> None:
        """Wait until the gateway forwards no request."""
        self.call(self.gateway.wait_idle())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def _on_done(self, running: Future[None]) -> None:
        if (error := running.exception()) and not self._started.done():
            self._started.set_exception(error)

    async def _to_zero(self) -> None:
        self._balancers[AT_ZERO].proxy.set_replicas({})

    async def _wake(self) -> None:
        """Start a replica for a request that has waited for a while, as the operator does."""
        proxy = self._balancers[AT_ZERO].proxy
        while True:
            await asyncio.sleep(0.05)
            if proxy.dispatcher.queued and not proxy.dispatcher.total_slots:
                # For long enough that comments are sent.
                await asyncio.sleep(0.5)
                proxy.set_replicas({self._replicas[CHAT].name: True})

    async def _run(self) -> None:
        keys = ApiKeys(b"salt")
        keys.replace({KEY_NAME: KEY.encode()})
        async with AsyncExitStack() as stack:
            for server in SERVERS:
                replicas: Any = [] if server.at_zero else [self._replicas[server.name]]
                balancer = run_balancer(*replicas, heartbeat_seconds=0.1, test_seconds=SECONDS)
                self._balancers[server.name] = await stack.enter_async_context(balancer)
            broken = await stack.enter_async_context(FakeLlama(2, break_stream))
            self._balancers[BROKEN] = await stack.enter_async_context(
                run_balancer(broken, test_seconds=SECONDS)
            )
            upstreams: Any = self._balancers
            gateway = await stack.enter_async_context(
                run_gateway(GATEWAY, keys=keys, test_seconds=SECONDS, **upstreams)
            )
            at_zero = server_manifest(AT_ZERO, state=status("True", "ScaledToZero"))
            others = (server_manifest(name) for name in self._balancers if name != AT_ZERO)
            gateway.set_servers(at_zero, *others)
            entries = gateway.gateway.entries
            for name in self._replicas:
                await until(lambda name=name: entries._entries[name].info.props)  # type: ignore[misc]
            waking = asyncio.create_task(self._wake())
            self._started.set_result(gateway)
            await self._stop.wait()
            waking.cancel()


@dataclass(frozen=True)
class Address:
    """Where the gateway is, and a valid API key."""

    url: str
    key: str = KEY
    stack: Stack | None = field(default=None, repr=False)
    """None on a cluster."""


@contextmanager
def run_stack(command: list[str]) -> Iterator[Stack]:
    """Run everything."""
    model = os.environ.get(MODEL) or str(write_model("quick", "--layers", "2", "--width", "64"))
    with ExitStack() as started:
        replicas = {
            server.name: started.enter_context(run_llama_server(command, server, model))
            for server in SERVERS
            if not server.at_zero
        }
        yield started.enter_context(Stack(replicas))


async def break_stream(call: Call) -> None:
    """Begin a stream in the format of the path, and close the connection."""
    if call.path not in PROXIED:
        await call.send_json({})
        return
    await call.send_head()
    if call.path.endswith("/messages"):
        start = '{"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
        start += '"content":[],"model":"m","usage":{"input_tokens":1,"output_tokens":0}}}'
        data = f"event: message_start\ndata: {start}\n\n".encode()
        await call.write(b"%x\r\n%s\r\n" % (len(data), data))
    else:
        await call.send_event('{"choices":[{"index":0,"delta":{"content":"Hel"}}]}')
    await asyncio.sleep(0.05)
    call.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"llama-server ended with status {process.returncode}")
        try:
            status, _ = asyncio.run(
                http_get.get("127.0.0.1", port, "/health", seconds=5, max_bytes=10_000)
            )
        except OSError:
            status = 0
        if status == 200:
            return
        time.sleep(0.05)
    raise RuntimeError("llama-server is not ready")
