"""Where an API server is, and how to authenticate to it: in a pod, or by a kubeconfig."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

TOKEN_SECONDS = 60.0
"""How long a pod's token is used before its file is read again: the kubelet replaces it within its
hour of life."""


class NoClusterError(Exception):
    """There is no API server to talk to; the message states what is missing."""


@dataclass(frozen=True)
class Endpoint:
    """An API server."""

    url: str
    """Without a path, as https://HOST:PORT."""
    tls: ssl.SSLContext | bool = True
    """How its certificate is verified; True: against the system's authorities."""
    authorization: Callable[[], Awaitable[str | None]] | None = None
    """Returns the current value of the Authorization header."""
    proxy: str | None = None
    tls_server_name: str | None = None


async def connect(environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The cluster of `KUBECONFIG`, else the one this pod runs in, else of ~/.kube/config.

    Raises NoClusterError, or kubernetes' ConfigException where a kubeconfig is not valid.
    """
    if "KUBECONFIG" not in environ and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    return await of_kubeconfig(environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"))


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Endpoint:
    """The cluster that this pod runs in, as its ServiceAccount. Raises NoClusterError.

    Not by the official client: it loads pydantic and the models of all kinds, which takes a quarter
    of a second and 40 MB in each balancer.
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
        raise NoClusterError(f"cannot read the ServiceAccount in {folder}: {error}") from error
    name = f"[{host}]" if ":" in host else host
    return Endpoint(f"https://{name}:{port}", tls, token.authorization)


async def of_kubeconfig(path: str) -> Endpoint:
    """The cluster of a kubeconfig's current context, with all of its ways to authenticate.

    Raises kubernetes' ConfigException where there is no such file, or it is not valid.
    """
    # Slow to import, and not installed where a pod's own cluster is all that is needed.
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
    """A ServiceAccount's token, read again each minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = ""
        self._read_at = float("-inf")

    def read(self) -> str:
        """Read the file. Raises OSError, also where it is empty."""
        value = self._path.read_text(encoding="ascii").strip()
        if not value:
            raise OSError(f"{self._path} is empty")
        self._value = value
        return value

    async def authorization(self) -> str:
        """The header's value. Where the file cannot be read for a moment the last token is used."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at > TOKEN_SECONDS:
            self._read_at = now
            with suppress(OSError):  # the API server rejects the last one if it has expired
                self.read()
        return f"Bearer {self._value}"
