"""/healthz: whether the kubelet should leave the operator running."""

import asyncio
from collections.abc import Callable

from slotkeeper.wire.sockets import listen

READ_SECONDS = 5.0

MAX_HEAD = 16 * 1024
"""Bytes of a request's head."""


async def serve_health(
    address: tuple[str, int], problem: Callable[[], str | None]
) -> asyncio.Server:
    """Respond to every HTTP request with 200, or with 503 and the problem while there is one."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(problem()))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            # The client has disconnected, or its request is not HTTP.
            pass
        finally:
            writer.close()

    return await asyncio.start_server(respond, sock=listen(*address), limit=MAX_HEAD)


def _response(problem: str | None) -> bytes:
    status = "503 Service Unavailable" if problem else "200 OK"
    body = f"{problem or 'ok'}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
