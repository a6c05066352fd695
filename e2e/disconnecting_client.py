"""Clients that vanish: each sends a part of a request, or reads a part of an answer, and resets.

    python e2e/disconnecting_client.py http://10.96.0.7

One for each stage that a request goes through; prints the stages.
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
    "in the head": (HEAD[:20], 0),
    "in the body": (HEAD + BODY[:100], 0),
    "sent": (HEAD + BODY, 0),
    "at the answer's first byte": (HEAD + BODY, 1),
    "in mid-stream": (HEAD + BODY, 2000),
}


async def vanish(host: str, port: int, sent: bytes, read: int) -> None:
    """Send and read so much, then reset the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    await writer.drain()
    if read:
        await reader.readexactly(read)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def main(url: str) -> None:
    """Go through the stages, several clients at each."""
    parts = urlsplit(url)
    for stage, (sent, read) in STAGES.items():
        await asyncio.gather(
            *(vanish(str(parts.hostname), parts.port or 80, sent, read) for _ in range(3))
        )
        print(stage, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
