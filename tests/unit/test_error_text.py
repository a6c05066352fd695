"""Errors are text that a user may search for, without numbers of the operating system."""

import asyncio
import socket

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from slotkeeper.error_text import describe

REFUSED = ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 8080)")


def connector_error(cause: OSError) -> aiohttp.ClientConnectorError:
    key = ConnectionKey("10.0.0.1", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorError(key, cause)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(REFUSED, "Connection refused", id="of asyncio"),
        pytest.param(
            ConnectionResetError(104, "Connection reset by peer"),
            "Connection reset by peer",
            id="with its own text",
        ),
        pytest.param(
            FileNotFoundError(2, "No such file or directory", "/etc/keys"),
            "No such file or directory",
            id="of a file, whose name the caller knows",
        ),
        pytest.param(
            socket.gaierror(-2, "Name or service not known"),
            "Name or service not known",
            id="of a name",
        ),
        pytest.param(
            OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno -2] b"),
            "Multiple exceptions: Connect call failed, b",
            id="several in one",
        ),
        pytest.param(
            connector_error(REFUSED),
            "cannot connect to 10.0.0.1:443: Connection refused",
            id="of aiohttp",
        ),
        pytest.param(
            aiohttp.ClientOSError(32, "Broken pipe"),
            "Broken pipe",
            id="of aiohttp, later",
        ),
        pytest.param(
            RuntimeError("[Errno 111] Connection refused"), "Connection refused", id="of httpx"
        ),
        pytest.param(OSError("it has been removed"), "it has been removed", id="of our own"),
        pytest.param(TimeoutError(), "timed out", id="timeout"),
        pytest.param(TimeoutError(110, "Connection timed out"), "Connection timed out", id="TCP"),
        pytest.param(ConnectionError(), "ConnectionError", id="without text"),
    ],
)
def test_an_error_is_described_without_its_number(error: Exception, text: str) -> None:
    assert describe(error) == text


async def test_a_closed_port_is_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(ConnectionRefusedError) as caught:
        await asyncio.open_connection("127.0.0.1", port)

    assert describe(caught.value) == "Connection refused"
