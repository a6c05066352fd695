"""Connections of downloads: names are resolved, addresses checked, proxies used.

httpx connects with these transports for each request: of every source, of each redirect, and of the
segments of a file. A user chooses the URLs, and the pod reaches addresses that this user may not.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpcore
import httpx
from typing_extensions import override

from slotkeeper.address_guard import AddressGuard, IpAddress, is_forbidden
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

MAX_ADDRESSES = 4
"""Addresses of a name that are tried."""

MAX_UNUSED_BODY = 64 * 1024
"""Bytes of a body that is not used, which are received to use the connection again."""

Resolve = Callable[[str, int], Sequence[IpAddress]]
"""Returns the addresses of a host. Raises OSError or UnicodeError."""


def look_up(host: str, port: int) -> Sequence[IpAddress]:
    """Return the addresses of a host. Raises OSError, or UnicodeError if it cannot be a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Network:
    """How hosts are connected to."""

    guard: AddressGuard | None = None
    """None to connect to any address."""
    trusted_proxies: frozenset[str] = frozenset()
    """Proxies that an administrator has set, which may have any address."""
    resolve: Resolve = look_up
    connect: httpcore.NetworkBackend = field(default_factory=httpcore.SyncBackend)


def direct(network: Network, context: ssl.SSLContext) -> httpx.BaseTransport:
    """Return the transport to hosts that are connected to without a proxy."""
    guard = network.guard
    return _Transport(context, _Guarded(network, guard) if guard else network.connect)


def proxied(network: Network, context: ssl.SSLContext) -> Mapping[str, httpx.BaseTransport | None]:
    """Return the transports of the proxies of HTTP_PROXY and HTTPS_PROXY, by httpx's patterns of
    URLs, with None for the hosts in NO_PROXY."""
    proxies = getproxies()
    direct_hosts = [host.strip() for host in proxies.get("no", "").split(",") if host.strip()]
    if "*" in direct_hosts:
        return {}
    used = {scheme: proxies[scheme] for scheme in ("http", "https") if proxies.get(scheme)}
    patterns = [pattern for host in direct_hosts if (pattern := _pattern(host))]
    return {
        **{
            f"{scheme}://": _to_proxy(scheme, proxy, network, context)
            for scheme, proxy in used.items()
        },
        **dict.fromkeys(patterns),
    }


class _Transport(httpx.HTTPTransport):
    """httpx's own, with another way to connect."""

    def __init__(
        self,
        context: ssl.SSLContext,
        backend: httpcore.NetworkBackend,
        proxy: str | None = None,
        guard: AddressGuard | None = None,
    ) -> None:
        super().__init__(verify=context, proxy=proxy)
        # httpx has no argument for it; tests fail if it has no effect.
        self._pool._network_backend = backend  # noqa: SLF001
        self._guard = guard

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._guard:
            # The proxy resolves names. What is an address already can be checked here.
            host = request.url.raw_host.decode("ascii")
            _allowed(self._guard, host, _addresses_in(host))
        response = super().handle_request(request)
        is_last = response.status_code != HTTPStatus.UNAUTHORIZED
        is_last = is_last and not response.has_redirect_location
        return response if is_last else _without_body(response)


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that are allowed. What was checked is what is connected to: a second
    lookup might return another address."""

    def __init__(self, network: Network, guard: AddressGuard, prefix: str = "") -> None:
        self._network = network
        self._guard = guard
        self._prefix = prefix

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = _addresses_in(host) or self._network.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _allowed(self._guard, host, found, self._prefix)[:MAX_ADDRESSES]:
            try:
                return self._network.connect.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _without_body(response: httpx.Response) -> httpx.Response:
    """Return a response that another request follows. httpx would read all of its body into memory,
    and decompress it, whatever its size."""
    size = 0
    with closing(response):
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > MAX_UNUSED_BODY:
                break
    headers = [each for each in response.headers.raw if each[0].lower() != b"content-encoding"]
    return httpx.Response(response.status_code, headers=headers, extensions=response.extensions)


def _to_proxy(
    scheme: str, proxy: str, network: Network, context: ssl.SSLContext
) -> httpx.BaseTransport:
    guard = network.guard
    backend = network.connect
    if guard and proxy not in network.trusted_proxies:
        backend = _Guarded(network, guard, "the proxy ")
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        # The port is checked here: the library only checks that it is a number.
        if not urlsplit(url).hostname or urlsplit(url).port == 0:
            raise ValueError
        return _Transport(context, backend, url, guard)
    except (ValueError, httpx.InvalidURL):
        # Its URL may contain a password.
        raise DownloadError(
            Reason.MODEL_URL_NOT_ALLOWED,
            f"the proxy for {scheme}:// URLs (model.download.{scheme}Proxy) is not "
            "http://HOST:PORT or https://HOST:PORT",
        ) from None


def _pattern(host: str) -> str | None:
    """Return httpx's pattern of the URLs with a host in NO_PROXY, which may be a domain; None for
    what is no host, which other programs ignore too."""
    if "://" in host:
        pattern = host
    elif address := _address(host.removeprefix("[").removesuffix("]")):
        pattern = f"all://[{address}]" if address.version == 6 else f"all://{address}"
    elif host.lower() == "localhost":
        pattern = f"all://{host}"
    else:
        # Some programs require `*.` before a domain.
        pattern = f"all://*{host.removeprefix('*')}"
    try:
        httpx.URL(pattern)
    except httpx.InvalidURL:
        return None
    return pattern


def _address(text: str) -> IpAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _addresses_in(host: str) -> Sequence[IpAddress]:
    """Return the address that a host is, in any notation; none if it is a name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return [IPv4Address("127.0.0.1")]
    if address := _address(name):
        return [address]
    try:
        # Such as 2130706433 and 0x7f.1.
        return [IPv4Address(socket.inet_aton(name))]
    except OSError:
        return []


def _allowed(
    guard: AddressGuard, host: str, addresses: Sequence[IpAddress], prefix: str = ""
) -> Sequence[IpAddress]:
    """Return the allowed ones. Raises DownloadError (ModelAddressNotAllowed) if there are others
    only."""
    allowed = [address for address in addresses if guard.allows(host, address)]
    if allowed or not addresses:
        return allowed
    private = [address for address in addresses if not is_forbidden(address)]
    if private:
        why = (
            f"its address {private[0]} is not public: for a Service of the server's namespace, use "
            "the form SERVICE.NAMESPACE.svc; else add the range to the chart's value "
            "modelDownloads.allowedAddressRanges"
        )
    else:
        why = (
            f"its address {addresses[0]} is a loopback, link-local, multicast, reserved or "
            "metadata address, which no model host may have"
        )
    raise DownloadError(
        Reason.MODEL_ADDRESS_NOT_ALLOWED, f"connecting to {prefix}{host} is not allowed: {why}"
    )
