"""A TCP wire between two programs that a test can cut, in silence or with a reset."""

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
    """One connection through the wire."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    silent: bool = False
    """Whatever either side sends is swallowed, and neither hears that the other has ended."""


@dataclass
class Wire:
    """Passes connections to a port of this machine on to another one, from a thread of its own."""

    target: int
    port: int = 0
    links: list[Link] = field(default_factory=list)
    """Those that pass something on."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def silence(self) -> int:
        """From now on nothing comes through what is open; what is opened later is well.

        Returns how many connections that were.
        """
        return self._do(self._silence)

    def reset(self) -> int:
        """Both sides of all that is open are told of it, by RST; returns how many that were."""
        return self._do(self._reset)

    def _do(self, action: Callable[[], Coroutine[Any, Any, int]]) -> int:
        return asyncio.run_coroutine_threadsafe(action(), self._loop).result(timeout=10)

    async def _silence(self) -> int:
        cut = self.links
        self.links = []
        for link in cut:
            link.silent = True
        return len(cut)

    async def _reset(self) -> int:
        cut = self.links
        self.links = []
        for link in cut:
            for writer in (link.near, link.far):
                # Without a time to linger, a socket that is closed sends RST.
                on = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
                writer.transport.abort()
        return len(cut)

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        answers, far = await asyncio.open_connection("127.0.0.1", self.target)
        link = Link(near, far)
        self.links.append(link)
        # It is also how a connection ends that is open when the wire is taken down.
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_pass_on(reader, far, link), _pass_on(answers, near, link))
        if link in self.links:
            self.links.remove(link)
        near.close()
        far.close()

    async def _serve(self, listening: threading.Event, ends: asyncio.Event) -> None:
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            await ends.wait()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    while data := await reader.read(65536):
        if not link.silent:
            writer.write(data)
            await writer.drain()
    if not link.silent:
        writer.close()


@contextmanager
def wire(target: int) -> Iterator[Wire]:
    """A wire to this port, for as long as the block lasts."""
    strung = Wire(target)
    listening = threading.Event()
    ends = asyncio.Event()
    loop = strung._loop
    thread = threading.Thread(target=_run, args=(loop, strung._serve(listening, ends)))
    thread.start()
    listening.wait(timeout=10)
    try:
        yield strung
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(timeout=10)


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serving)
