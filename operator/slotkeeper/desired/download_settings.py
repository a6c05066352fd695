"""What the chart sets for the downloads of all servers."""

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
    node_cache_path: str | None = None
    """Folder on each node for models with cache.node, with a folder for each namespace. None: not
    allowed."""


NO_SETTINGS = DownloadSettings()
