"""The balancers of this server: the pods behind its Service, as its EndpointSlices show them.

A Lease is no proof: anyone who may patch Leases can name any holder, with any address. Only the
endpoints controller writes EndpointSlices, and they decide already which pods get the clients'
requests. So they are the only source of a peer's address.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slotkeeper.kube.cluster import ApiError
from slotkeeper.wire.sockets import join

CLIENTS_PORT = "http"
METRICS_PORT = "metrics"
"""Names of the ports of the balancers' Service."""

_log = logging.getLogger(__name__)

Slices = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A balancer: its pod's name, and HOST:PORT of its clients' port and of its metrics port."""

    identity: str
    clients: str
    metrics: str


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT or [HOST]:PORT. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def peers_in(slices: Slices) -> dict[str, Peer]:
    """Return the balancers by name, ready or not: one that shuts down still leads for a while."""
    peers: dict[str, Peer] = {}
    for each in slices:
        ports = {port.get("name"): port.get("port") for port in each.get("ports") or ()}
        clients, metrics = ports.get(CLIENTS_PORT), ports.get(METRICS_PORT)
        if not (clients and metrics):
            continue
        for endpoint in each.get("endpoints") or ():
            pod = endpoint.get("targetRef") or {}
            addresses = endpoint.get("addresses") or ()
            if pod.get("kind") != "Pod" or not pod.get("name") or not addresses:
                continue
            address = addresses[0]
            peer = Peer(pod["name"], join(address, clients), join(address, metrics))
            peers.setdefault(peer.identity, peer)
    return peers


class PeerDirectory:
    """The current balancers. `identity`: of this one.

    `fetch` reads the EndpointSlices from the API server, in its present state. Raises ApiError.
    """

    def __init__(self, identity: str, fetch: Callable[[], Awaitable[Slices]]) -> None:
        self.identity = identity
        self._fetch = fetch
        self._peers: dict[str, Peer] = {}

    def __contains__(self, peer: Peer) -> bool:
        return self._peers.get(peer.identity) == peer

    @property
    def includes_me(self) -> bool:
        """Whether the other balancers can find this one."""
        return self.identity in self._peers

    def update(self, slices: Slices) -> None:
        """Replace all balancers by those in `slices`.

        Without this one the slices are incomplete, as after the deletion of the Service: the known
        balancers then stay.
        """
        peers = peers_in(slices)
        if self.identity in peers:
            self._peers = peers

    def find(self, identity: str) -> Peer | None:
        """Return the balancer of this name, or None."""
        return self._peers.get(identity)

    async def look_up(self, identity: str, seconds: float) -> Peer | None:
        """Return the balancer of this name; the slices are read again if it is not known.

        Raises ApiError if they cannot be read within `seconds`.
        """
        if identity and identity not in self._peers:
            try:
                async with asyncio.timeout(seconds):
                    self.update(await self._fetch())
            except TimeoutError:
                raise ApiError(0, "Timeout", "API server timed out") from None
            if identity not in self._peers:
                _log.warning("%s is not a balancer of this server", identity[:253])
        return self._peers.get(identity)
