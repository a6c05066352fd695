"""The progress over HTTP: from the program that serves it, and from pods that do harm."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from slotkeeper.download.progress_server import serve_progress
from slotkeeper.download.tracker import Tracker
from slotkeeper.reconcile.downloads import client as module
from slotkeeper.reconcile.downloads.client import open_progress_client
from slotkeeper.reconcile.downloads.report import ProgressReport

VALID = b'{"phase": "Downloading", "bytes": 10, "downloadedBytes": 5}'


@asynccontextmanager
async def pod(response: bytes) -> AsyncIterator[str]:
    """A pod that sends this to each request, and leaves the connection open."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)

    server = await asyncio.start_server(serve, "127.0.0.1")
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in writers:
        writer.transport.abort()
    await server.wait_closed()


def response(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_the_operator_reads_what_the_download_serves() -> None:
    tracker = Tracker(time.monotonic)
    with serve_progress(0, tracker.report, time.monotonic, time.sleep, "127.0.0.1") as port:
        async with open_progress_client() as fetch:
            report = await fetch(f"127.0.0.1:{port}")

    assert report == ProgressReport(phase="Checking")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(response(VALID, "503 Service Unavailable"), id="error response"),
        pytest.param(response(b"<p>"), id="HTML"),
        pytest.param(b"what?\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", id="redirect"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2**20, id="endless"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**16, id="endless header"),
        pytest.param(response(VALID.replace(b"5}", b"50}")), id="absurd"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", id="gzip"
        ),
    ],
)
async def test_a_hostile_response_is_an_error(raw: bytes) -> None:
    async with pod(raw) as address, open_progress_client() as fetch:
        with pytest.raises((OSError, ValueError)):
            await fetch(address)


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
async def test_a_pod_that_stops_to_send_is_an_error_after_a_second(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.TIMEOUT_SECONDS == 1.0
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.05)
    async with pod(raw) as address, open_progress_client() as fetch:
        with pytest.raises(TimeoutError):
            await fetch(address)


async def test_a_valid_response_is_parsed() -> None:
    async with pod(response(VALID)) as address, open_progress_client() as fetch:
        assert (await fetch(address)).model_dump(by_alias=True, exclude_none=True) == json.loads(
            VALID
        )
