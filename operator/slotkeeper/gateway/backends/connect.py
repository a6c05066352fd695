"""Connections to external backends: names are resolved, addresses checked, TLS is verified."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Protocol

from slotkeeper.address_guard import AddressGuard, IpAddress
from slotkeeper.error_text import describe
from slotkeeper.gateway.target_config import Backend
from slotkeeper.wire.client import UpstreamConnection

MAX_ADDRESSES = 4
"""Addresses of a name that are tried."""
_MAX_LOOKUPS = 2
"""The loop resolves with four threads: names that are never resolved must not occupy all of them,
since those of the servers are resolved there too."""


class AddressNotAllowed(OSError):  # noqa: N818 (nothing failed: it is forbidden)
    """No address of the host may be connected to."""


class Dial(Protocol):
    """Opens a connection to an address. Raises OSError."""

    async def __call__(
        self,
        factory: Callable[[], UpstreamConnection],
        address: str,
        port: int,
        *,
        context: ssl.SSLContext | None,
        server_name: str,
    ) -> UpstreamConnection:
        """`context` None: without TLS; else the certificate must be for `server_name`."""


Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a host. Raises OSError."""


async def dial(
    factory: Callable[[], UpstreamConnection],
    address: str,
    port: int,
    *,
    context: ssl.SSLContext | None,
    server_name: str,
) -> UpstreamConnection:
    """Open a connection to an address. Raises OSError, of which ssl.SSLError is a subclass."""
    _, connection = await asyncio.get_running_loop().create_connection(
        factory, address, port, ssl=context, server_hostname=server_name if context else None
    )
    return connection


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Resolver:
    """Resolves names: each at most once at the same time, and few of them."""

    def __init__(self, look_up: Resolve = look_up) -> None:
        self._look_up = look_up
        self._limit = asyncio.Semaphore(_MAX_LOOKUPS)
        self._running: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises OSError."""
        key = host, port
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._limited(host, port))
            task.add_done_callback(lambda done: self._on_done(key, done))
        # A lookup cannot be canceled, and counts until it has ended: only its caller gives up.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel all lookups."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _on_done(self, key: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # or asyncio would log it where all callers have given up

    async def _limited(self, host: str, port: int) -> list[str]:
        async with self._limit:
            return await self._look_up(host, port)


async def connect(
    factory: Callable[[], UpstreamConnection],
    backend: Backend,
    context: ssl.SSLContext | None,
    guard: AddressGuard,
    resolve: Resolve,
    dial: Dial,
) -> UpstreamConnection:
    """Open a connection to a backend. Raises OSError, AddressNotAllowed among others.

    The address that was checked is the one that is connected to: a second lookup might return
    another one.
    """
    found = await _addresses(backend, resolve)
    allowed = [each for each in found if guard.allows(backend.host, each)][:MAX_ADDRESSES]
    if not allowed:
        raise AddressNotAllowed(
            f"{backend.host} has no address that the gateway may connect to"
            if found
            else f"{backend.host} has no address"
        )
    failure = OSError()
    for address in allowed:
        try:
            return await dial(
                factory, str(address), backend.port, context=context, server_name=backend.host
            )
        except ssl.CertificateError as error:
            # Not a matter of the address.
            raise OSError(f"TLS certificate not valid: {error.verify_message}") from error
        except OSError as error:
            failure = error
    raise OSError(describe(failure)) from failure


async def _addresses(backend: Backend, resolve: Resolve) -> list[IpAddress]:
    try:
        return [ip_address(backend.host)]
    except ValueError:
        return [ip_address(each) for each in await resolve(backend.host, backend.port)]
