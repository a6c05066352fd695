"""The load generator's client detects the end of a response however it is split."""

import asyncio
from typing import cast

import pytest

from bench.balancer.client import Client

JSON = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
STREAM = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n9\r\ndata: 0\n\n\r\n0\r\n\r\n"
)


class RecordingHandler:
    """A ResponseHandler that records its calls."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[tuple[int, bytes]] = []

    def on_data(self, data: bytes, now: int) -> None:  # noqa: ARG002
        self.data += data

    def on_end(self, status: int, body: bytes) -> None:
        self.ends.append((status, body))


class NoTransport:
    """Discards what is written."""

    def write(self, data: bytes) -> None: ...


@pytest.mark.parametrize(
    ("response", "body"),
    [pytest.param(JSON, b"hello", id="json"), pytest.param(STREAM, b"", id="stream")],
)
def test_a_response_ends_once_wherever_it_is_split(response: bytes, body: bytes) -> None:
    client = _client()
    for at in range(1, len(response)):
        handler = RecordingHandler()
        client.send(b"", handler)

        client.data_received(response[:at])
        assert not handler.ends
        client.data_received(response[at:])

        assert handler.ends == [(200, body)]
        assert handler.data == response


def test_a_lost_connection_is_status_0() -> None:
    client, handler = _client(), RecordingHandler()
    client.send(b"", handler)

    client.data_received(JSON[:-1])
    client.connection_lost(None)

    assert handler.ends == [(0, b"")]


def _client() -> Client:
    client = Client()
    client.connection_made(cast("asyncio.Transport", NoTransport()))
    return client
