"""A tar archive that arrives in chunks: the content of one of its files, and the names of others.

tarfile reads from a file object; here the archive is pushed by the transfer, and may be resumed
within a file. Headers are parsed by tarfile. Nothing is extracted by its name, so that a name such
as `../../etc/passwd` is only compared.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError

MAX_EXTENSION_BYTES = 1024**2
"""Of a header for a long name, which is kept in memory."""

MAX_HEADERS = 2_000_000
"""An archive of empty files would keep a CPU busy for long. A file may have several."""

MAX_NAME = 4096
"""Characters of a path, as in Linux. The memory for all folders of a path is quadratic."""

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_RECORD = re.compile(rb"([0-9]{1,20}) ([^=]+)=")


@dataclass(frozen=True)
class Entry:
    """A header of the archive."""

    name: str
    """Without a leading `/` or `./`, and without `/` at its end."""
    size: int
    is_file: bool
    is_folder: bool
    link: str | None
    """Target of a symbolic or hard link."""


def path_in_archive(name: str) -> str:
    """Return a path as images have them, without a leading `/` or `./`."""
    return re.sub(r"^(?:[.]?/)+", "", name).rstrip("/")


class TarStream:
    """Parses the chunks of an archive."""

    def __init__(self, select: Callable[[Entry], bool]) -> None:
        """`select` returns whether the content of an entry is wanted. It may raise an error."""
        self._select = select
        self._header = bytearray()
        self._needed = tarfile.BLOCKSIZE
        """Bytes of a header, or of its extension, that are collected before they are parsed."""
        self._extension: bytes | None = None
        """Type of the extension that is collected."""
        self._extension_size = 0
        self._overrides: dict[str, str] = {}
        """Name and size that extensions set for the next entry."""
        self._content = 0
        """Remaining bytes of a selected entry."""
        self._skip = 0
        """Bytes up to the next header, after the content."""
        self._headers = 0
        self.ended = False
        """Whether the end of the archive has been read."""

    @property
    def missing_content(self) -> int:
        """How many bytes of the selected entry come next."""
        return self._content

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Parse the next bytes, and yield the parts of them that are selected content.

        Raises DownloadError if the archive is malformed.
        """
        view = memoryview(data)
        while view and not self.ended:
            if self._content:
                part, view = view[: self._content], view[self._content :]
                self._content -= len(part)
                yield part
            elif self._skip:
                skipped = min(self._skip, len(view))
                self._skip -= skipped
                view = view[skipped:]
            else:
                missing = self._needed - len(self._header)
                self._header += view[:missing]
                view = view[missing:]
                if len(self._header) == self._needed:
                    self._parse(bytes(self._header))

    def _parse(self, data: bytes) -> None:
        self._header.clear()
        if self._extension is not None:
            self._read_extension(self._extension, data)
            self._extension, self._needed = None, tarfile.BLOCKSIZE
            return
        if not any(data):
            self.ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise malformed(str(error)) from None
        self._headers += 1
        if self._headers > MAX_HEADERS:
            raise malformed(f"more than {MAX_HEADERS} headers")
        if info.type in _EXTENSIONS:
            if not 0 < info.size <= MAX_EXTENSION_BYTES:
                raise malformed(f"a header of {info.size} bytes")
            self._extension = info.type
            self._needed = _padded(info.size)
            self._extension_size = info.size
            return
        self._read_entry(info)

    def _read_entry(self, info: tarfile.TarInfo) -> None:
        if info.type == tarfile.GNUTYPE_SPARSE or "sparse" in self._overrides:
            raise malformed("a sparse file")
        size = self._overrides.get("size", str(info.size))
        if not re.fullmatch("[0-9]{1,18}", size):
            raise malformed("the size of a file")
        entry = Entry(
            name=path_in_archive(self._overrides.get("path", info.name)),
            size=int(size),
            is_file=info.isreg(),
            is_folder=info.isdir(),
            link=self._overrides.get("linkpath", info.linkname)
            if info.issym() or info.islnk()
            else None,
        )
        self._overrides = {}
        longest = max(len(entry.name), len(entry.link or ""))
        if longest > MAX_NAME:
            raise malformed(f"a name of {longest} characters")
        # Links and folders have no content, whatever their header states: as in tarfile.
        has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        stored = entry.size if has_content else 0
        self._content = stored if self._select(entry) else 0
        self._skip = _padded(stored) - self._content

    def _read_extension(self, kind: bytes, data: bytes) -> None:
        data = data[: self._extension_size]
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._overrides["path"] = _text(data.rstrip(b"\0"))
        elif kind == tarfile.GNUTYPE_LONGLINK:
            self._overrides["linkpath"] = _text(data.rstrip(b"\0"))
        else:
            self._overrides |= _records(data)


def malformed(details: str) -> DownloadError:
    """Return the error of an archive that cannot be read."""
    return DownloadError(
        Reason.MODEL_DOWNLOAD_REJECTED,
        f"a layer of the image is not a valid tar archive: {details}",
    )


def _records(data: bytes) -> dict[str, str]:
    """Return the records of a PAX header, each `LENGTH KEY=VALUE\\n`."""
    found: dict[str, str] = {}
    position = 0
    while position < len(data):
        record = _RECORD.match(data, position)
        end = position + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data):
            raise malformed("a PAX header")
        key = _text(record[2])
        if key in {"path", "linkpath", "size"}:
            found[key] = _text(data[record.end() : end - 1])
        elif key.startswith("GNU.sparse."):
            found["sparse"] = key
        position = end
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
