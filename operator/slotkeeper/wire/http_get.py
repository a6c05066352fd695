"""A small request on its own connection, such as for /health and /slots of a replica."""

import asyncio
from collections.abc import Iterable

from slotkeeper.wire.client import Pool
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import Header, ResponseHead


async def get(
    host: str,
    port: int,
    path: str,
    *,
    seconds: float,
    max_bytes: int,
    headers: Iterable[Header] = (),
) -> tuple[int, bytes]:
    """Return the status and body of `http://host:port/path`, as received: not decompressed.

    `headers` are sent in addition.

    Raises ConnectionRefusedError if the port is closed, and another OSError (such as TimeoutError)
    if no complete response arrives within `seconds`, or as soon as its body is longer than
    `max_bytes`.
    """
    return await request(
        "GET", host, port, path, seconds=seconds, max_bytes=max_bytes, headers=headers
    )


async def request(  # noqa: PLR0913 (a request has as many parts)
    method: str,
    host: str,
    port: int,
    path: str,
    *,
    seconds: float,
    max_bytes: int,
    headers: Iterable[Header] = (),
    body: bytes = b"",
) -> tuple[int, bytes]:
    """Do the same with another method, and with a JSON `body`. Raises the same."""
    async with asyncio.timeout(seconds):
        pool = Pool(host, port, max_idle=0, connect_seconds=seconds)
        connection = await pool.connect()
        try:
            collector = _Collector(max_bytes)
            host_header = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            first = f"{method} {path} HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n"
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            if method != "GET":
                lines += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
            head = b"%s%s\r\n" % (first.encode(), lines)
            connection.send(head, (body,) if body else (), collector)
            return await collector.result
        finally:
            connection.abort()


class _Collector:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.result: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body: list[bytes] = []
        self._size = 0

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:  # noqa: ARG002
        self._status = head.status

    def on_body(self, data: bytes, framing: Framing) -> None:  # noqa: ARG002
        payload = framing.payload()
        self._size += len(payload)
        if self._size <= self._max_bytes:
            self._body.append(payload)
        elif not self.result.done():
            self.result.set_exception(OSError(f"response of more than {self._max_bytes} bytes"))

    def on_end(self) -> None:
        if not self.result.done():
            self.result.set_result((self._status, b"".join(self._body)))

    def on_lost(self, reason: str, *, began: bool) -> None:  # noqa: ARG002
        if not self.result.done():
            self.result.set_exception(ConnectionResetError(reason))
