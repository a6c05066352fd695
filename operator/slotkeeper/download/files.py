"""A file of the spec, and the files on the network or on a volume that it consists of."""

from dataclasses import dataclass, field
from pathlib import Path

import httpx

from slotkeeper.download.address import source_id
from slotkeeper.llamacpp.gguf_split import Part


@dataclass(frozen=True)
class File:
    """A file to download, and its target."""

    url: str
    path: Path
    """Of a split model, that of its first file."""
    sha256: str | None = None
    """64 lower-case hex digits; None to accept any content."""
    role: str = "model"
    """Field of the spec that names the file."""
    parts_sha256: tuple[str, ...] = ()
    """Of a split model, instead of `sha256`: one for each of its files, or empty."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch with GET."""

    url: str
    """http:// or https://, even if the spec's URL has another scheme."""
    path: Path
    sha256: str | None = None
    identity: str = ""
    """What names the content, such as the URL with the commit of a repository; by default the URL.
    A partial file of another identity is not resumed."""
    part: Part = field(default_factory=Part)
    auth: httpx.Auth | None = None
    """What authorizes requests instead of the token."""

    @property
    def source(self) -> str:
        """The hash of what names the content, without its credentials."""
        return source_id(self.identity or self.url)
