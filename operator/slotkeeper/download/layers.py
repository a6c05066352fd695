"""A file inside of a layer of a container image: it is taken out of the layer as that arrives.

The bytes of a layer are those of a tar archive, often compressed with gzip. All of them are
received and hashed, because only the digest of the whole layer shows that the registry has sent
what the manifest names. Only the file is written to the disk.

A transfer that breaks continues where it was. After a restart of the process, the layer is received
again: the state of its digest and its decompression is lost.
"""

import hashlib
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.quantity import of_bytes
from slotkeeper.api.split_model import ANY_PART
from slotkeeper.download.address import source_id
from slotkeeper.download.errors import DownloadError, shown
from slotkeeper.download.files import Image, Layer
from slotkeeper.download.partial_file import Open, PartialFile, open_file
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.tar_stream import Entry, TarStream, malformed

_UNPACKED_BYTES = 1024**2
"""Decompressed at a time."""

_MAX_DELETED_BYTES = 8 * 1024**2
"""Of the memory for paths that layers have deleted. An image chooses their number and length."""

_SET_ENTRY_BYTES = 64
"""What a path takes besides its text, about."""

_FIRST_WINDOW = 16 * 1024
"""Bytes that are decompressed after the end of a member. The rest of them is copied at each end, of
which a megabyte may have fifty thousand."""

_DELETED = ".wh."
_OPAQUE = ".wh..wh..opq"
"""Files that delete from the layers below: the file with the rest of the name, or all of the
folder."""


class Deleted:
    """Paths that layers have deleted from the layers below them."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.folders: set[str] = set()
        """Whose contents are deleted; empty for the root."""
        self._bytes = 0

    def add(self, entry: Entry) -> bool:
        """Add what an entry of a layer deletes. Return whether it does. Raises DownloadError."""
        folder, _, name = entry.name.rpartition("/")
        if not name.startswith(_DELETED):
            return False
        if name == _OPAQUE:
            self._add(self.folders, folder)
        else:
            self._add(self.paths, f"{folder}/{name.removeprefix(_DELETED)}".removeprefix("/"))
        return True

    def update(self, other: "Deleted") -> None:
        """Add what a layer has deleted. Raises DownloadError."""
        for path in other.paths:
            self._add(self.paths, path)
        for folder in other.folders:
            self._add(self.folders, folder)

    def contains(self, path: str) -> bool:
        """Whether a path of a lower layer is deleted."""
        folders = {path[: match.start()] for match in re.finditer("/", path)}
        return not (
            self.paths.isdisjoint({path, *folders}) and self.folders.isdisjoint({"", *folders})
        )

    def _add(self, paths: set[str], path: str) -> None:
        if path in paths:
            return
        self._bytes += sys.getsizeof(path) + _SET_ENTRY_BYTES
        if self._bytes > _MAX_DELETED_BYTES:
            raise malformed("the layers of the image delete too many files")
        paths.add(path)


@dataclass(frozen=True)
class Search:
    """What is searched for in the layers of an image, from the uppermost to the lowest."""

    image: Image
    deleted: Deleted
    """By the layers that were searched."""
    limits: StorageLimits


class LayerFile(PartialFile):
    """The partial file from a layer, if the layer has the file.

    `size` and `total` are those of the layer, which is what is transferred. `content_size` and
    `content_total` are those of the file.
    """

    def __init__(self, path: Path, layer: Layer, search: Search, opener: Open = open_file) -> None:
        super().__init__(path, source_id(f"{layer.sha256} {search.image.identity}"), opener)
        self._layer = layer
        self._search = search
        self._begin()

    def _begin(self) -> None:
        """Expect the first byte of the layer."""
        self.name: str | None = None
        """Path of the file in the image; None until it is found."""
        self._deleted = Deleted()
        """By this layer."""
        self._content_size = 0
        self._content_total: int | None = None
        self._unpacked = 0
        self._layer_digest = hashlib.sha256()
        self._unzip = _gzip() if self._layer.gzip else None
        self._tar = TarStream(self._select)

    @property
    @override
    def content_size(self) -> int:
        return self._content_size

    @property
    @override
    def content_total(self) -> int | None:
        return self._content_total

    @property
    @override
    def has_content(self) -> bool:
        return self.name is not None

    @override
    def content_after(self, more: int) -> int:
        # Its size is known from its header, and limited then.
        return self._content_size

    @override
    def restart(self, *, validator: str | None, total: int | None) -> None:
        # Without a record: another process cannot resume it.
        super().restart(validator=None, total=total)
        self.validator = validator
        self._begin()

    @override
    def append(self, chunk: bytes | memoryview) -> None:
        """Append bytes of the layer. Raises DownloadError if it has not what is searched for."""
        self.size += len(chunk)
        self._layer_digest.update(chunk)
        try:
            for data in self._unpack(chunk):
                self._limit(len(data))
                for content in self._tar.feed(data):
                    self._file.write(content)
                    self._content_size += len(content)
                    self._count_content(content)
            # The next block of the layer may have no more content, which would wait for this one.
            self._digest.wait()
        except DownloadError:
            self.discard()
            raise

    @override
    def finish(self) -> None:
        """Verify the layer, and remember what it deletes from the layers below."""
        digest = self._layer_digest.hexdigest()
        if digest != self._layer.sha256:
            self.discard()
            raise DownloadError(
                Reason.MODEL_CHECKSUM_MISMATCH,
                f"GET {self._layer.url} returned {self.size} bytes with SHA-256 {digest}",
            )
        if self._tar.missing_content or (self._unzip and not self._unzip.eof):
            self.discard()
            raise malformed("it ends early")
        if not self.has_content:
            self.discard()
        self._search.deleted.update(self._deleted)

    def _unpack(self, chunk: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the archive, of which few at a time are decompressed."""
        if self._unzip is None:
            yield chunk
            return
        packed = memoryview(chunk)
        window = len(packed)
        while packed:
            if self._unzip.eof:
                # Files of several members are valid, and some builders write them.
                self._unzip = _gzip()
                window = _FIRST_WINDOW
            part = packed[:window]
            try:
                yield self._unzip.decompress(part, _UNPACKED_BYTES)
            except zlib.error as error:
                raise malformed(f"gzip: {error}") from None
            left = len(self._unzip.unconsumed_tail) + len(self._unzip.unused_data)
            packed = packed[len(part) - left :]
            window *= 2

    def _limit(self, more: int) -> None:
        """Limit all content of the layer: few bytes can be decompressed to very many, and very many
        to none."""
        self._unpacked += more
        if max(self._unpacked, self.size) > self._search.limits.max_bytes:
            raise DownloadError(
                Reason.MODEL_TOO_LARGE,
                f"{self._search.image.url}: a layer has more content than the "
                f"{of_bytes(self._search.limits.max_bytes)} of model.download.maxFileSize",
            )

    def _select(self, entry: Entry) -> bool:
        """Whether an entry of the layer is the file. Raises DownloadError if there is no right one.

        What the layers above have deleted is not there.
        """
        if self._deleted.add(entry) or self._search.deleted.contains(entry.name):
            return False
        image = self._search.image
        if not (self._is_named(entry) if image.path else self._is_model(entry)):
            return False
        if self.name is not None:
            raise DownloadError(
                Reason.MODEL_AMBIGUOUS,
                f"{image.url} has several GGUF files, of which the URL must name one: "
                f"{image.named(shown(self.name))}, {image.named(shown(entry.name))}",
            )
        self.name = entry.name
        self._content_total = entry.size
        self._search.limits.require_announced(image.url, self)
        return True

    def _is_named(self, entry: Entry) -> bool:
        image = self._search.image
        path = image.path or ""
        is_above = path.startswith(f"{entry.name}/") and not entry.is_folder
        if entry.name != path and not is_above:
            return False
        if entry.link is not None:
            raise DownloadError(
                Reason.MODEL_NOT_FOUND,
                f"{image.url}: /{shown(entry.name)} is a link to {shown(entry.link)}: name the "
                "file itself",
            )
        if is_above or not entry.is_file:
            kind = "folder" if is_above else "regular file"
            raise DownloadError(
                Reason.MODEL_NOT_FOUND, f"{image.url}: /{shown(entry.name)} is not a {kind}"
            )
        return True

    def _is_model(self, entry: Entry) -> bool:
        image = self._search.image
        name = entry.name.rpartition("/")[2]
        if not entry.is_file or not name.endswith(".gguf"):
            return False
        if ("mmproj" in name.lower()) != image.is_projector:
            return False
        if re.search(ANY_PART, name):
            raise DownloadError(
                Reason.MODEL_SPLIT,
                f"{image.url} has a split model, whose first file the URL must name, such as "
                f"{image.named(re.sub('-[0-9]{5}-of', '-00001-of', shown(entry.name)))}",
            )
        return True


def not_found(image: Image) -> DownloadError:
    """Return the error of an image without the file."""
    what = f"no file /{image.path}" if image.path else "no file whose name ends with .gguf"
    return DownloadError(
        Reason.MODEL_NOT_FOUND, f"{image.url} has {what}, in {len(image.layers)} layers"
    )


def _gzip() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
