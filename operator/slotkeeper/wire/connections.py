"""The open connections of one listening address, by client, and which of them has to close.

At a limit, the connection that closes is one without a request in progress, of the client address
that has the most. So a client that opens thousands of connections displaces its own, and a request
that is queued or running is never displaced.
"""

import ipaddress
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

from slotkeeper.wire.budget import MemoryBudget
from slotkeeper.wire.limits import Limits


class Closed(StrEnum):
    """Why a connection was closed early: a label of the metric."""

    CONNECTION_LIMIT = "connection_limit"
    """A new connection at max_connections, while all others had a request in progress."""
    ADDRESS_LIMIT = "address_limit"
    """The same at max_connections_per_address."""
    DISPLACED = "displaced"
    """It had no request in progress, and made room for a new connection."""
    BUFFER_LIMIT = "buffer_limit"
    """It had no request in progress, and made room for the bytes of others."""


class OpenConnection(Protocol):
    """The operations of a connection that its server uses."""

    client: "Client"
    """The client address that it counts for."""
    waiting_bytes: int
    """What it occupies while no request is in progress."""
    unauthenticated_bytes: int
    """What it occupies of that before authentication."""

    def drain(self) -> None:
        """Close after the response in progress, or now if the connection is idle."""

    def close(self, *, reset: bool) -> None:
        """Close after what is already written, or (`reset`) at once with a TCP reset."""


class Client:
    """One client address and its connections."""

    __slots__ = ("address", "count", "waiting", "waiting_bytes")

    def __init__(self, address: str) -> None:
        self.address = address
        self.count = 0
        self.waiting: dict[OpenConnection, None] = {}
        """Connections without a request in progress, the one that has waited longest first."""
        self.waiting_bytes = 0
        """What these occupy."""


class Connections:
    """The open connections of one listening address."""

    def __init__(self, limits: Limits, budget: MemoryBudget) -> None:
        self.closed = dict.fromkeys(Closed, 0)
        """Number of connections closed early, by reason."""
        self._limits = limits
        self._budget = budget
        self._open: set[OpenConnection] = set()
        self._clients: dict[str, Client] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenConnection]:
        return iter(list(self._open))

    def add(self, connection: OpenConnection, host: str) -> bool:
        """Add a connection from `host`; return False if there is no room for it."""
        address = network_of(host)
        client = self._clients.get(address)
        if client is None:
            client = Client(address)
        if client.count >= self._limits.max_connections_per_address and not self._displace(client):
            self.closed[Closed.ADDRESS_LIMIT] += 1
            return False
        if len(self._open) >= self._limits.max_connections and not self._displace(self._largest()):
            self.closed[Closed.CONNECTION_LIMIT] += 1
            return False
        # Displacing the client's only connection has removed it.
        self._clients[address] = client
        client.count += 1
        client.waiting[connection] = None
        connection.client = client
        self._open.add(connection)
        return True

    def remove(self, connection: OpenConnection) -> None:
        """Remove a closed connection. No effect if it was removed before."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        client = connection.client
        client.waiting.pop(connection, None)
        client.count -= 1
        if not client.count:
            self._clients.pop(client.address, None)

    def relieve(self, growing: Client) -> bool:
        """Free memory for `growing`; return False if no other client occupies more than that one.

        Closes incomplete requests of the client that occupies most with them.
        """
        while self._budget.exceeded:
            client = max(self._clients.values(), key=lambda each: each.waiting_bytes)
            if client.waiting_bytes <= growing.waiting_bytes:
                return False
            largest = max(client.waiting, key=lambda each: each.waiting_bytes)
            self._close(largest, Closed.BUFFER_LIMIT)
        return True

    def relieve_unauthenticated(self) -> None:
        """Close connections before authentication until their bytes are in budget.

        Those of the clients that occupy most, and of each the one that has waited longest.
        """
        if not self._budget.unauthenticated_exceeded:
            return
        clients = sorted(self._clients.values(), key=lambda each: each.waiting_bytes, reverse=True)
        for client in clients:
            for connection in list(client.waiting):
                if not connection.unauthenticated_bytes:
                    continue
                self._close(connection, Closed.BUFFER_LIMIT)
                if self._budget.unauthenticated_relieved:
                    return

    def _largest(self) -> Client | None:
        waiting = [client for client in self._clients.values() if client.waiting]
        return max(waiting, key=lambda client: client.count, default=None)

    def _displace(self, client: Client | None) -> bool:
        if client is None or not client.waiting:
            return False
        self._close(next(iter(client.waiting)), Closed.DISPLACED)
        return True

    def _close(self, connection: OpenConnection, reason: Closed) -> None:
        self.closed[reason] += 1
        connection.close(reset=True)
        self.remove(connection)


def network_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network of 64 bits.

    One host may use all addresses of such a network.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
