"""A TCP proxy whose connections a test can stall, or close with a reset."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Link:
    """One proxied connection."""

    downstream: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    stalled: bool = False
    """What either side sends is discarded, and neither side is closed when the other one closes."""


@dataclass
class TcpProxy:
    """Forwards connections from one port of this machine to another, in its own thread."""

    target: int
    port: int = 0
    links: list[Link] = field(default_factory=list)
    """The connections that are forwarded."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def stall(self) -> int:
        """Stop forwarding on all open connections, but not on later ones. Return their number."""
        return self._run(self._stall)

    def reset(self) -> int:
        """Close both sides of all open connections with RST. Return their number."""
        return self._run(self._reset)

    def _run(self, action: Callable[[], Coroutine[Any, Any, int]]) -> int:
        return asyncio.run_coroutine_threadsafe(action(), self._loop).result(timeout=10)

    async def _stall(self) -> int:
        links = self.links
        self.links = []
        for link in links:
            link.stalled = True
        return len(links)

    async def _reset(self) -> int:
        links = self.links
        self.links = []
        for link in links:
            for writer in (link.downstream, link.upstream):
                # With a linger time of 0, closing a socket sends RST.
                on = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
                writer.transport.abort()
        return len(links)

    async def _accept(
        self, requests: asyncio.StreamReader, downstream: asyncio.StreamWriter
    ) -> None:
        responses, upstream = await asyncio.open_connection("127.0.0.1", self.target)
        link = Link(downstream, upstream)
        self.links.append(link)
        # A connection that is still open when the proxy ends is canceled.
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(
                _forward(requests, upstream, link), _forward(responses, downstream, link)
            )
        if link in self.links:
            self.links.remove(link)
        downstream.close()
        upstream.close()

    async def _serve(self, listening: threading.Event, end: asyncio.Event) -> None:
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            await end.wait()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    while data := await reader.read(65536):
        if not link.stalled:
            writer.write(data)
            await writer.drain()
    if not link.stalled:
        writer.close()


@contextmanager
def tcp_proxy(target: int) -> Iterator[TcpProxy]:
    """Run a proxy to this port for the duration of the block."""
    proxy = TcpProxy(target)
    listening = threading.Event()
    end = asyncio.Event()
    loop = proxy._loop
    thread = threading.Thread(target=_serve_in_loop, args=(loop, proxy._serve(listening, end)))
    thread.start()
    listening.wait(timeout=10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(timeout=10)


def _serve_in_loop(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serving)
