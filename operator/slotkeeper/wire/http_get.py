"""A small GET on its own connection, for /health and /slots of a replica."""

import asyncio

from slotkeeper.wire.client import Pool
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead

_MAX_BODY = 8 * 1024 * 1024


async def get(host: str, port: int, path: str, *, seconds: float) -> tuple[int, bytes]:
    """Return the status and body of `http://host:port/path`.

    Raises ConnectionRefusedError if the port is closed, and another OSError (such as TimeoutError)
    if no complete response arrives within `seconds`.
    """
    async with asyncio.timeout(seconds):
        pool = Pool(host, port, max_idle=0, connect_seconds=seconds)
        connection = await pool.connect()
        try:
            collector = _Collector()
            host_header = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            connection.send(
                f"GET {path} HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n".encode(),
                (),
                collector,
            )
            return await collector.result
        finally:
            connection.abort()


class _Collector:
    def __init__(self) -> None:
        self.result: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body: list[bytes] = []
        self._size = 0

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:  # noqa: ARG002
        self._status = head.status

    def on_body(self, data: bytes, framing: Framing) -> None:  # noqa: ARG002
        payload = framing.payload()
        self._size += len(payload)
        if self._size <= _MAX_BODY:
            self._body.append(payload)

    def on_end(self) -> None:
        if self.result.done():
            return
        if self._size > _MAX_BODY:
            self.result.set_exception(
                OSError(f"response of {self._size} bytes exceeds {_MAX_BODY}")
            )
        else:
            self.result.set_result((self._status, b"".join(self._body)))

    def on_lost(self, reason: str, *, began: bool) -> None:  # noqa: ARG002
        if not self.result.done():
            self.result.set_exception(ConnectionResetError(reason))
