"""/healthz: whether the operator should be left running."""

import asyncio
from collections.abc import Callable

READ_SECONDS = 5.0


async def serve_health(address: tuple[str, int], is_healthy: Callable[[], bool]) -> asyncio.Server:
    """Answer every HTTP request with 200 while healthy, 503 when not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                line, body = (
                    ("200 OK", "ok\n")
                    if is_healthy()
                    else (
                        "503 Service Unavailable",
                        "kopf's watches show nothing\n",
                    )
                )
                head = (
                    f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write((head + body).encode())
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            # Whoever asked is gone, or asked no HTTP.
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, *address, limit=16 * 1024)
