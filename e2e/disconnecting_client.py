"""Clients that send a part of a request, or read a part of a response, and reset the connection.

    python e2e/disconnecting_client.py http://10.96.0.7

Several clients for each stage of a request; prints the name of each stage.
"""

import asyncio
import json
import socket
import struct
import sys
from urllib.parse import urlsplit

BODY = json.dumps(
    {"prompt": "x " * 300, "n_predict": 4000, "stream": True, "ignore_eos": True}
).encode()
HEAD = b"POST /completion HTTP/1.1\r\nHost: llama\r\nContent-Length: %d\r\n\r\n" % len(BODY)

STAGES = {
    "connected": (b"", 0),
    "in the request head": (HEAD[:20], 0),
    "in the request body": (HEAD + BODY[:100], 0),
    "request sent": (HEAD + BODY, 0),
    "first byte of the response": (HEAD + BODY, 1),
    "in the response stream": (HEAD + BODY, 2000),
}
"""Name of each stage, the bytes to send, and the number of bytes to read before the reset."""


async def send_and_reset(host: str, port: int, data: bytes, read: int) -> None:
    """Send `data`, read `read` bytes, then reset the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    await writer.drain()
    if read:
        await reader.readexactly(read)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def main(url: str) -> None:
    """Run several clients for each stage, one stage after the other."""
    parts = urlsplit(url)
    for stage, (data, read) in STAGES.items():
        await asyncio.gather(
            *(send_and_reset(str(parts.hostname), parts.port or 80, data, read) for _ in range(3))
        )
        print(stage, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
