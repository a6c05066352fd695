"""A file of the spec, and the files on the network or on a volume that it consists of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.download.address import source_id
from slotkeeper.llamacpp.gguf_layout import Layout
from slotkeeper.llamacpp.gguf_split import Part
from slotkeeper.llamacpp.gguf_use import Kind, Use


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
    same_vocabulary: bool = False
    """Whether it must have the model's vocabulary."""
    model: Layout | None = None
    """What the model's header states, if it is known and this is another file."""

    @property
    def use(self) -> Use:
        """What the header must fit."""
        kind = _KINDS.get(self.role.partition("[")[0])
        if self.model is None:
            return Use(kind)
        vocabulary = self.model.vocabulary if self.same_vocabulary else None
        return Use(kind, self.model.architecture, vocabulary)

    def sha256_of(self, number: int) -> str | None:
        """The expected SHA-256 of the file with this number, which starts at 1."""
        return self.parts_sha256[number - 1] if self.parts_sha256 else self.sha256


_KINDS = {
    "model": Kind.MODEL,
    "model.mmproj": Kind.PROJECTOR,
    "model.adapters": Kind.ADAPTER,
    "speculative.draft": Kind.MODEL,
}


@dataclass(frozen=True)
class Layer:
    """A layer of a container image."""

    url: str
    sha256: str
    gzip: bool


@dataclass(frozen=True)
class Image:
    """A container image, one of whose layers contains the file."""

    url: str
    """oci:// URL of the spec."""
    base: str
    """The same without the path."""
    layers: tuple[Layer, ...]
    """From the uppermost to the lowest."""
    path: str | None
    """Of the file in the image, without a leading `/`; None for the only GGUF file."""
    is_projector: bool = False
    """Whether the file is a projector, where its path is not known."""

    @property
    def identity(self) -> str:
        """What names the content."""
        digests = " ".join(layer.sha256 for layer in self.layers)
        return f"{digests} {self.path} {self.is_projector}"

    def named(self, path: str) -> str:
        """Return the URL of a file in this image."""
        return f"{self.base}/{path}"


TOKEN = "spec.model.tokenSecretRef to a Secret with a token"  # noqa: S105 (the name of a field)
ACCESS_KEY = "spec.model.s3.secretRef to a Secret with an access key"


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
    use: Use = field(default_factory=Use)
    name: str = ""
    """Of the file, as the hub or the registry lists it; empty where the spec's URL has it, or where
    it is found in an image later."""
    header_only: bool = False
    """Whether the transfer ends as soon as the GGUF header has been accepted."""
    auth: httpx.Auth | None = None
    """What authorizes requests instead of the token."""
    credentials: str = TOKEN
    """What the spec lacks if a host rejects requests without credentials."""
    image: Image | None = None
    """Set if the file is inside of a layer of this image."""

    @property
    def source(self) -> str:
        """The hash of what names the content, without its credentials."""
        return source_id(self.identity or self.url)


def adjacent_files(
    file: File,
    url: Callable[[str], str] = str,
    auth: httpx.Auth | None = None,
    credentials: str = TOKEN,
) -> list[RemoteFile]:
    """Return the files of a model whose URLs differ in their numbers only.

    `url` returns the URL of a request from that of the spec.
    """
    count = part_count(file.url)
    return [
        RemoteFile(
            url=url(part_name(file.url, number)),
            path=file.path.with_name(part_name(file.path.name, number)),
            sha256=file.sha256_of(number),
            part=Part(number, count),
            auth=auth,
            credentials=credentials,
        )
        for number in range(1, count + 1)
    ]
