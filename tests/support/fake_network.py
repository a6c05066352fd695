"""A network for downloads: names have the addresses that a test sets, and all addresses lead to
servers on loopback. It records what is connected to."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import httpcore
from typing_extensions import override

from slotkeeper.address_guard import AddressGuard, IpAddress, network
from slotkeeper.download.network import Network

PUBLIC = "93.184.216.34"
NAMESPACE = "team"


class FakeNetwork(httpcore.NetworkBackend):
    """Resolves names, and connects to 127.0.0.1 instead of their addresses."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers = {name.replace("_", "."): [*texts] for name, texts in answers.items()}
        """DNS responses by name, each with addresses separated by spaces; the last one repeats."""
        self.lookups: list[str] = []
        self.connected: list[str] = []
        self.unreachable: set[str] = set()

    def guarded(self, *allowed: str, trusted_proxies: Iterable[str] = ()) -> Network:
        """Return what connects to public addresses, Services of the namespace, and `allowed`."""
        guard = AddressGuard(NAMESPACE, tuple(map(network, allowed)))
        return Network(guard, frozenset(trusted_proxies), self._resolve, self)

    def _resolve(self, host: str, _port: int) -> Sequence[IpAddress]:
        self.lookups.append(host)
        if host not in self.answers:
            raise OSError(-2, "Name or service not known")
        answers = self.answers[host]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ip_address(text) for text in answer.split()]

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.connected.append(host)
        if host in self.unreachable:
            raise httpcore.ConnectTimeout("timed out")
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", port, timeout)
