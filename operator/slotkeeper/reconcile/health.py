"""/healthz: whether the kubelet should leave the operator running."""

import asyncio
from collections.abc import Callable

from slotkeeper.wire.sockets import listen

READ_SECONDS = 5.0

MAX_HEAD = 16 * 1024
"""Bytes of a request's head."""


async def serve_health(address: tuple[str, int], is_healthy: Callable[[], bool]) -> asyncio.Server:
    """Respond to every HTTP request with 200 while healthy, else 503."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(healthy=is_healthy()))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            # The client has disconnected, or its request is not HTTP.
            pass
        finally:
            writer.close()

    return await asyncio.start_server(respond, sock=listen(*address), limit=MAX_HEAD)


def _response(*, healthy: bool) -> bytes:
    status = "200 OK" if healthy else "503 Service Unavailable"
    body = "ok\n" if healthy else "watch stalled\n"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()
