"""Listening on IPv4 and IPv6, on loopback."""

import asyncio
import socket

import pytest
from typing_extensions import override

from slotkeeper.wire import sockets

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")


async def accepted_peer(listening: socket.socket, host: str) -> str:
    """Connect to a socket; return the name of the peer that its server gets."""
    peers: asyncio.Queue[str] = asyncio.Queue()

    class Peer(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            address = sockets.peer_address(transport)
            assert address
            peers.put_nowait(sockets.join(*address))
            transport.close()

    port = listening.getsockname()[1]
    async with await asyncio.get_running_loop().create_server(Peer, sock=listening):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return (await peers.get()).rpartition(":")[0]


@needs_ipv6
@pytest.mark.parametrize(("host", "peer"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_all_addresses_are_those_of_ipv4_and_ipv6(host: str, peer: str) -> None:
    assert await accepted_peer(sockets.listen("::", 0), host) == peer


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1", "127.0.0.1"), pytest.param("::1", "::1", marks=needs_ipv6)],
)
async def test_one_address_is_that_address(address: str, host: str) -> None:
    listening = sockets.listen(address, 0)

    assert listening.getsockname()[0] == address
    assert (await accepted_peer(listening, host)).strip("[]") == host


def test_an_address_in_use_is_an_os_error() -> None:
    with (
        sockets.listen("::", 0) as first,
        pytest.raises(OSError, match="in use"),
    ):
        sockets.listen("::", first.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::1"])
def test_an_address_other_than_all_is_never_replaced(host: str) -> None:
    assert sockets.available(host) == host


@pytest.mark.parametrize(
    ("host", "joined"), [("::1", "[::1]:80"), ("10.0.0.1", "10.0.0.1:80"), ("name", "name:80")]
)
def test_an_ipv6_address_is_joined_in_brackets(host: str, joined: str) -> None:
    assert sockets.join(host, 80) == joined
