"""Whatever pieces an answer comes in, the load generator sees its end once, and there."""

import asyncio
from typing import cast

import pytest

from bench.balancer.client import Client

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
STREAM = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n9\r\ndata: 0\n\n\r\n0\r\n\r\n"
)


class Ends:
    """An Asker that remembers what it was told."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[tuple[int, bytes]] = []

    def on_data(self, data: bytes, now: int) -> None:  # noqa: ARG002
        self.data += data

    def on_end(self, status: int, body: bytes) -> None:
        self.ends.append((status, body))


class NoTransport:
    """Takes what is written."""

    def write(self, data: bytes) -> None: ...


@pytest.mark.parametrize(
    ("answer", "body"),
    [pytest.param(WHOLE, b"hello", id="whole"), pytest.param(STREAM, b"", id="stream")],
)
def test_an_answer_ends_once_wherever_it_is_split(answer: bytes, body: bytes) -> None:
    client = _client()
    for at in range(1, len(answer)):
        asker = Ends()
        client.ask(b"", asker)

        client.data_received(answer[:at])
        assert not asker.ends
        client.data_received(answer[at:])

        assert asker.ends == [(200, body)]
        assert asker.data == answer


def test_a_broken_connection_is_status_0() -> None:
    client, asker = _client(), Ends()
    client.ask(b"", asker)

    client.data_received(WHOLE[:-1])
    client.connection_lost(None)

    assert asker.ends == [(0, b"")]


def _client() -> Client:
    client = Client()
    client.connection_made(cast("asyncio.Transport", NoTransport()))
    return client
