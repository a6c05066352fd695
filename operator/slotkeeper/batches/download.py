"""Sends the content of a file, in pieces that the client has room for."""

import asyncio
import json

from slotkeeper.batches.disk import Disk
from slotkeeper.batches.records import StoredFile
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import ResponseHead, encode_response_head

_PIECE = 256 * 1024


async def send_content(exchange: Exchange, disk: Disk, file: StoredFile) -> None:
    """Send the response. Raises OSError."""
    ready = asyncio.Event()
    ready.set()

    def on_backpressure(paused: bool) -> None:
        if paused:
            ready.clear()
        else:
            ready.set()

    path = disk.path(file.id)
    content = await disk.in_thread(lambda: path.open("rb"))
    try:
        exchange.on_backpressure = on_backpressure
        _begin(exchange, file)
        left = 0 if exchange.request.method == b"HEAD" else file.bytes
        while left and exchange.is_open:
            piece = await disk.in_thread(content.read, min(left, _PIECE))
            if not piece:
                raise OSError(f"the content of {file.id} is shorter than {file.bytes} bytes")
            left -= len(piece)
            exchange.write(piece)
            await ready.wait()
        exchange.on_backpressure = None
        exchange.end()
    finally:
        content.close()


def _begin(exchange: Exchange, file: StoredFile) -> None:
    name = json.dumps(file.filename).encode()
    headers = [
        (b"Content-Type", b"application/octet-stream"),
        (b"Content-Disposition", b"attachment; filename=%s" % name),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Content-Length", b"%d" % file.bytes),
    ]
    head = encode_response_head(
        ResponseHead(200, b"OK", headers, True),
        chunked=False,
        connection=exchange.connection_header(),
    )
    exchange.begin(200, head)
