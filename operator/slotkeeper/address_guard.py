"""Which addresses may be connected to for a URL that a user has chosen. Pure.

A user who may write LlamaGateways or LlamaServers chooses hosts of backends and of models, and pods
reach addresses that this user may not: of nodes, of cloud metadata services, of other namespaces.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

# Metadata services that have no link-local address: of Azure, Alibaba Cloud, Oracle Cloud, AWS,
# Google Cloud and Scaleway.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:c1::a9fe:a9fe",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:ec2::123",
            "fd20:ce::254",
            "fd00:42::42",
        ),
    )
)
_THIS_HOST = IPv4Network("0.0.0.0/8")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Allows public addresses, and private ones in `allowed` or of Services of `namespace`.

    Loopback, link-local, multicast, unspecified, reserved and metadata addresses are never allowed.
    """

    namespace: str = ""
    """The resource's own, in which its users may run pods with the same reach."""
    allowed: tuple[IpNetwork, ...] = ()

    def allows(self, host: str, address: IpAddress) -> bool:
        """Whether this address of `host` may be connected to."""
        if is_forbidden(address):
            return False
        if self._is_own_service(host):
            return True
        forms = _forms(address)
        return all(
            each.is_global or any(each in network for network in self.allowed) for each in forms
        )

    def _is_own_service(self, host: str) -> bool:
        namespace = re.escape(self.namespace)
        pattern = rf"[a-z0-9][-a-z0-9]*\.{namespace}\.svc(\.cluster\.local)?\.?"
        return bool(namespace) and re.fullmatch(pattern, host, re.ASCII) is not None


def is_forbidden(address: IpAddress) -> bool:
    """Whether an address is one of those that are never allowed."""
    return not all(map(_is_possible, _forms(address)))


def _forms(address: IpAddress) -> Iterable[IpAddress]:
    """The address, and the IPv4 address that it leads to through a translator or a tunnel."""
    if isinstance(address, IPv4Address):
        yield address
        return
    # Without a zone, with which it would not equal a metadata address.
    address = IPv6Address(int(address))
    if address.ipv4_mapped:
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64 or address in _COMPATIBLE:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)


def _is_possible(address: IpAddress) -> bool:
    """Whether an address may be connected to at all."""
    if address.is_loopback or address.is_link_local or address.is_multicast:
        return False
    if address in _METADATA:
        return False
    if isinstance(address, IPv4Address):
        return not (address.is_reserved or address in _THIS_HOST)
    # A prefix for a translator of the network's own, whose form is not known.
    if address.is_unspecified or address.is_site_local or address in _LOCAL_NAT64:
        return False
    return address in _NAT64 or not address.is_reserved


def network(text: str) -> IpNetwork:
    """Parse a network such as 10.0.0.0/8. Raises ValueError."""
    return ip_network(text)
