"""An HTTP client that sends given bytes unchanged and keeps the received ones unchanged."""

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Response:
    """One response: `raw` is all of it as received, `body` is without chunk framing."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def error_code(self) -> str:
        """The code in the body of an error response."""
        code: str = json.loads(self.body)["error"]["code"]
        return code


class RawClient:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.port = port

    @classmethod
    async def connect(cls, port: int, *, host: str = "127.0.0.1", limit: int = 2**20) -> Self:
        return cls(*await asyncio.open_connection(host, port, limit=limit), port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, *, to_head: bool = False) -> Response:
        """Read the next response. Raises IncompleteReadError if it is incomplete."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode().split("\r\n")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        body = b""
        if to_head or status in {100, 204, 304}:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            raw, body = await self._chunks(raw)
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
            raw += body
        else:
            body = await self.reader.read()
            raw += body
        return Response(status, headers, body, raw)

    async def request(self, data: bytes) -> Response:
        await self.send(data)
        return await self.response()

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, with nothing more to read."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _chunks(self, raw: bytes) -> tuple[bytes, bytes]:
        body = b""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            chunk = await self.reader.readexactly(int(line, 16) + 2)
            raw += line + chunk
            body += chunk[:-2]
            if line == b"0\r\n":
                return raw, body


def post(path: str, body: bytes = b"{}", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: test", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
