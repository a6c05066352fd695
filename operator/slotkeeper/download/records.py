"""Small JSON files that say what a big file beside them is."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PartialRecord:
    """Where the bytes of an unfinished download are from; kept as `MODEL.part.json`."""

    source: str
    """The URL's `source_id`."""
    validator: str
    """Strong ETag or Last-Modified: what If-Range sends, so that two versions never mix."""
    total: int
    """Bytes of the whole file."""

    @classmethod
    def read(cls, path: Path) -> "PartialRecord | None":
        """None where the record is missing, torn, or not a record of this kind."""
        match _read(path):
            case {"source": str(source), "validator": str(validator), "total": int(total)}:
                return cls(source, validator, total)
            case _:
                return None


@dataclass(frozen=True)
class FileRecord:
    """What a finished file is; kept as `MODEL.json`."""

    url: str
    """As shown to people: without userinfo and query."""
    source: str
    """The URL's `source_id`."""
    sha256: str
    size: int
    modified: int
    """When the file was last written, in nanoseconds: until then it is what was checked."""

    @classmethod
    def read(cls, path: Path) -> "FileRecord | None":
        """None where the record is missing, torn, or not a record of this kind."""
        match _read(path):
            case {
                "url": str(url),
                "source": str(source),
                "sha256": str(sha256),
                "size": int(size),
                "modified": int(modified),
            }:
                return cls(url, source, sha256, size, modified)
            case _:
                return None


def write(path: Path, record: PartialRecord | FileRecord) -> None:
    """Write `record` so that it is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put renames and removals within `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
