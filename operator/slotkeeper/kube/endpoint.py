"""Address and credentials of an API server, from a pod's ServiceAccount or from a kubeconfig."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.error_text import describe

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

TOKEN_SECONDS = 60.0
"""Seconds between two reads of a pod's token: the kubelet replaces it within its lifetime of an
hour."""


class NoClusterError(Exception):
    """No API server is configured. The message states what is missing."""


@dataclass(frozen=True)
class Endpoint:
    """Address and credentials of an API server."""

    url: str
    """https://HOST:PORT, without a path."""
    tls: ssl.SSLContext | bool = True
    """How its certificate is verified; True: with the system's certificate authorities."""
    authorization: Callable[[], Awaitable[str | None]] | None = None
    """Returns the current value of the Authorization header, None for no such header."""
    proxy: str | None = None
    tls_server_name: str | None = None


async def connect(environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the endpoint of `KUBECONFIG`, else of this pod's cluster, else of ~/.kube/config.

    Raises NoClusterError, or kubernetes' ConfigException if a kubeconfig is not valid.
    """
    if "KUBECONFIG" not in environ and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    return await from_kubeconfig(environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"))


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Endpoint:
    """Return the endpoint of this pod's cluster, with its ServiceAccount. Raises NoClusterError.

    The official client is not used here: it loads pydantic and the models of all kinds, which takes
    a quarter of a second and 40 MB in each balancer.
    """
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise NoClusterError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    token = _Token(folder / "token")
    authority = folder / "ca.crt"
    try:
        token.read()
        tls = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        found = error.filename or folder
        message = f"cannot read the ServiceAccount in {found}: {describe(error)}"
        raise NoClusterError(message) from error
    name = f"[{host}]" if ":" in host else host
    return Endpoint(f"https://{name}:{port}", tls, token.authorization)


async def from_kubeconfig(path: str) -> Endpoint:
    """Return the endpoint of a kubeconfig's current context, with its authentication method.

    Raises kubernetes' ConfigException if the file is missing or not valid.
    """
    # Slow to import, and not installed in images that only use their pod's cluster.
    from kubernetes.aio.client import Configuration  # noqa: PLC0415
    from kubernetes.aio.client.rest import RESTClientObject  # noqa: PLC0415
    from kubernetes.aio.config import load_kube_config  # noqa: PLC0415

    configuration = Configuration()
    await load_kube_config(path, client_configuration=configuration)

    async def authorization() -> str | None:
        token: str | None = await configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        return token

    return Endpoint(
        configuration.host.rstrip("/"),
        RESTClientObject(configuration).ssl_context,
        authorization,
        configuration.proxy,
        configuration.tls_server_name,
    )


class _Token:
    """A ServiceAccount's token, re-read every minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = ""
        self._read_at = float("-inf")

    def read(self) -> str:
        """Read the file. Raises OSError, also if it is empty."""
        value = self._path.read_text(encoding="ascii").strip()
        if not value:
            raise OSError(f"{self._path} is empty")
        self._value = value
        return value

    async def authorization(self) -> str:
        """Return the header's value. While the file is unreadable the last token is used."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at > TOKEN_SECONDS:
            self._read_at = now
            with suppress(OSError):  # if the last token has expired, the API server rejects it
                self.read()
        return f"Bearer {self._value}"
