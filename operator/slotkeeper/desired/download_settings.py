"""What the chart sets for the downloads of all servers, and for their folders on nodes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadSettings:
    """Settings for downloads that the operator was installed with."""

    http_proxy: str | None = None
    """Proxy for http:// URLs of servers that set none."""
    https_proxy: str | None = None
    """Proxy for https:// URLs of servers that set none."""
    no_proxy: tuple[str, ...] = ()
    """Hosts that are connected to directly, beside those that a server sets."""
    allowed_addresses: tuple[str, ...] = ()
    """Ranges of private addresses that may be connected to."""
    ca_certificates: str = ""
    """Certificates of private authorities in PEM format, beside those that a server sets."""
    operator_namespace: str | None = None
    """Namespace of the operator, which reads the progress of downloads; None if it runs outside of
    the cluster."""
    node_cache_path: str | None = None
    """Folder on each node for models with cache.node, with a folder for each namespace. None: not
    allowed."""
    node_prompts_path: str | None = None
    """Folder on each node for servers with promptCache.node, with a folder for each namespace, and
    in it one for each server. None: not allowed."""


NO_SETTINGS = DownloadSettings()
