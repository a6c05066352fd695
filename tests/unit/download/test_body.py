"""The body of a response is read from the connection, and is the same as without that."""

import itertools
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpcore
import httpx
import pytest
from typing_extensions import override

from llamaservers import ROOT
from model_host import ModelHost, Reply, chunked, content, endless, model_host
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download import body
from slotkeeper.download.body import BLOCK_BYTES, blocks
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.transfer import new_client

CERTIFICATE = Path(ROOT, "tests/support/tls.pem")
BODY = Random(1).randbytes(3 * BLOCK_BYTES + 12_345)


@pytest.mark.parametrize("size", [0, 1, 65_536, BLOCK_BYTES, 2 * BLOCK_BYTES, len(BODY)])
@pytest.mark.parametrize("reply", [content, chunked, endless])
def test_all_bytes_are_returned_in_order(
    host: ModelHost, client: httpx.Client, reply: Callable[[bytes], Reply], size: int
) -> None:
    host.respond_with(reply(BODY[:size]))

    with client.stream("GET", host.url) as response:
        assert b"".join(map(bytes, blocks(response, lambda: 0.0))) == BODY[:size]


def test_all_bytes_are_returned_from_a_tls_connection() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with model_host(context) as host, new_client(ca_file=CERTIFICATE) as client:
        host.respond_with(content(BODY))
        with client.stream("GET", host.url) as response:
            assert b"".join(map(bytes, blocks(response, lambda: 0.0))) == BODY


def test_bytes_before_a_cut_are_returned(host: ModelHost, client: httpx.Client) -> None:
    cut = 2 * BLOCK_BYTES + 999
    host.respond_with(content(BODY, cut=cut))
    received: list[bytes] = []

    with client.stream("GET", host.url) as response, pytest.raises(httpx.RemoteProtocolError):
        received.extend(map(bytes, blocks(response, lambda: 0.0)))

    assert b"".join(received) == BODY[:cut]


class Connection(httpcore.NetworkStream):
    """Returns chunks, and then raises an error."""

    def __init__(self, chunks: Iterator[bytes], error: Exception) -> None:
        self._chunks = chunks
        self._error = error

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        for chunk in self._chunks:
            return chunk[:max_bytes]
        raise self._error


def response(connection: Connection, length: int = len(BODY)) -> httpx.Response:
    return httpx.Response(
        200,
        headers={"Content-Length": str(length)},
        stream=httpx.ByteStream(b"GGUF"),
        extensions={"network_stream": connection, "http_version": b"HTTP/1.1"},
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpcore.ReadTimeout("timed out"), httpx.ReadTimeout),
        (httpcore.ReadError("Connection reset by peer"), httpx.ReadError),
    ],
)
def test_errors_are_those_of_the_http_library_after_the_bytes(
    error: Exception, expected: type[Exception]
) -> None:
    connection = Connection(iter([b"ab", b"c"]), error)
    received: list[bytes] = []

    with pytest.raises(expected, match=str(error)):
        received.extend(map(bytes, blocks(response(connection), lambda: 0.0)))

    assert b"".join(received) == b"GGUFabc"


class SocketConnection(Connection):
    """Has a socket, and another state of TLS if `tls`; its own bytes are those of `chunks`."""

    def __init__(self, peer: socket.socket, chunks: Iterator[bytes], *, tls: bool = False) -> None:
        super().__init__(chunks, AssertionError("bytes were read through the library"))
        self._extra = {"socket": peer, "ssl_object": object() if tls else None}

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._extra.get(info)


@pytest.fixture
def host_and_client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        host, _ = listening.accept()
    with host, client:
        yield host, client


def test_bytes_are_received_from_the_socket_itself(
    host_and_client: tuple[socket.socket, socket.socket],
) -> None:
    host, client = host_and_client
    received = blocks(response(SocketConnection(client, iter(())), length=4 + BLOCK_BYTES), fast())
    assert next(received) == b"GGUF"

    host.sendall(b"abcdef")
    assert next(received) == b"abcdef"
    host.sendall(b"g")
    assert next(received) == b"g"


def fast() -> Callable[[], float]:
    """A clock with which each chunk is a block."""
    times = itertools.count(step=0.3)
    return lambda: next(times)


def test_bytes_in_tls_in_tls_are_read_through_the_library(
    host_and_client: tuple[socket.socket, socket.socket],
) -> None:
    host, client = host_and_client
    host.sendall(b"encrypted by the proxy")
    connection = SocketConnection(client, iter([b"ab", b"c"]), tls=True)
    received: list[bytes] = []

    with pytest.raises(AssertionError):
        received.extend(map(bytes, blocks(response(connection), lambda: 0.0)))

    assert b"".join(received) == b"GGUFabc"


def test_a_silent_host_is_a_timeout(
    host_and_client: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = host_and_client
    monkeypatch.setattr(body, "TIMEOUT", httpx.Timeout(0.01))

    with pytest.raises(httpx.ReadTimeout):
        list(blocks(response(SocketConnection(client, iter(()))), lambda: 0.0))


def test_a_reset_connection_is_a_read_error(
    host_and_client: tuple[socket.socket, socket.socket],
) -> None:
    host, client = host_and_client
    host.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    host.close()

    with pytest.raises(httpx.ReadError):
        list(blocks(response(SocketConnection(client, iter(()))), lambda: 0.0))


def test_bytes_of_a_slow_host_are_not_held_back_for_long() -> None:
    now = 0.0

    def slow() -> Iterator[bytes]:
        nonlocal now
        while True:
            now += 0.2
            yield bytes(1000)

    received = blocks(response(Connection(slow(), OSError())), lambda: now)
    next(received)

    assert len(next(received)) == 3000
    assert len(next(received)) == 3000


def test_a_host_that_sends_almost_nothing_is_given_up() -> None:
    now = 0.0

    def dribble() -> Iterator[bytes]:
        nonlocal now
        while True:
            now += 29
            yield b"."

    received: list[bytes] = []
    with pytest.raises(DownloadError, match="sent only") as caught:
        received.extend(map(bytes, blocks(response(Connection(dribble(), OSError())), lambda: now)))

    assert caught.value.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert caught.value.stalled
    assert b"".join(received) == b"GGUF..."
