"""JSON files that describe the file next to them: partial, complete, or resolved."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slotkeeper.bounded_json import parse

_MAX_BYTES = 256 * 1024
"""Of a record. Other pods may write to a volume that they share."""

SENDABLE = re.compile("[!-~]([ -~]*[!-~])?")
"""Values of headers that can be sent in a request."""


@dataclass(frozen=True)
class PartialRecord:
    """Origin of the bytes of a partial file; stored as `MODEL.part.json`."""

    source: str
    """`source_id` of the URL."""
    validator: str
    """Strong ETag or Last-Modified: the value of If-Range, so that two versions never mix."""
    total: int
    """Size of the complete file in bytes."""

    @classmethod
    def read(cls, path: Path) -> "PartialRecord | None":
        """Read a record; None if it is missing, truncated or malformed."""
        match _read(path):
            case {
                "source": str(source),
                "validator": str(validator),
                "total": int(total),
            } if SENDABLE.fullmatch(validator):
                return cls(source, validator, total)
            case _:
                return None


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at one commit, or a layer of an artifact."""

    name: str
    """Path in the repository."""
    sha256: str | None
    """As the hub states it; None if it does not."""
    archive: str | None = None
    """Format of a layer in which the file is searched: `tar` or `tar+gzip`."""


@dataclass(frozen=True)
class HubRecord:
    """What an hf:// or oci:// URL was resolved to; stored as `MODEL.hub.json` or `MODEL.oci.json`.

    A branch or a tag may move between two starts. With this, files of two commits never mix.
    """

    source: str
    """`source_id` of the URL and of the hub."""
    commit: str
    """Or the tag or digest of an artifact or image."""
    files: tuple[HubFile, ...]
    """The files of the model in their order, or the layers of an image from the uppermost."""

    @classmethod
    def read(cls, path: Path) -> "HubRecord | None":
        """Read a record; None if it is missing, truncated or malformed."""
        match _read(path):
            case {"source": str(source), "commit": str(commit), "files": [*files]}:
                found = [_hub_file(each) for each in files]
                known = tuple(each for each in found if each)
                return cls(source, commit, known) if len(known) == len(found) else None
            case _:
                return None


def _hub_file(tree: Any) -> HubFile | None:
    match tree:
        case {"name": str(name), "sha256": str(sha256) | (None as sha256), **others}:
            archive = others.get("archive")
            return HubFile(name, sha256, archive if isinstance(archive, str) else None)
        case _:
            return None


@dataclass(frozen=True)
class FileRecord:
    """Description of a complete file; stored as `MODEL.json`."""

    url: str
    """Redacted: without userinfo and query."""
    source: str
    """`source_id` of the URL."""
    sha256: str
    size: int
    modified: int
    """Modification time in nanoseconds. A file that was written since must be verified again."""
    changed: int = 0
    """Inode change time in nanoseconds. Unlike the modification time it cannot be set back."""
    name: str = ""
    """Of the file in a repository, an artifact or an image; empty where the URL has it."""

    @classmethod
    def read(cls, path: Path) -> "FileRecord | None":
        """Read a record; None if it is missing, truncated or malformed."""
        match _read(path):
            case {
                "url": str(url),
                "source": str(source),
                "sha256": str(sha256),
                "size": int(size),
                "modified": int(modified),
                **others,
            }:
                # 0 in records of earlier versions: the file is then verified once.
                changed, name = others.get("changed"), others.get("name")
                times = (modified, changed if isinstance(changed, int) else 0)
                named = name if isinstance(name, str) else ""
                return cls(url, source, sha256, size, *times, name=named)
            case _:
                return None


@dataclass(frozen=True)
class RejectionRecord:
    """A version of a file that was received and rejected; stored as `MODEL.rejected.json`."""

    source: str
    """`source_id` of the URL."""
    validator: str
    """As in PartialRecord; empty if the source names the content."""
    total: int
    """Size in bytes; 0 if the source names the content."""
    required: str
    """`source_id` of what the file had to be."""
    reason: str
    message: str

    @classmethod
    def read(cls, path: Path) -> "RejectionRecord | None":
        """Read a record; None if it is missing, truncated or malformed."""
        match _read(path):
            case {
                "source": str(source),
                "validator": str(validator),
                "total": int(total),
                "required": str(required),
                "reason": str(reason),
                "message": str(message),
            }:
                return cls(source, validator, total, required, reason, message)
            case _:
                return None


def write(path: Path, record: PartialRecord | FileRecord | HubRecord | RejectionRecord) -> None:
    """Write a record and sync it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync renames and deletions within `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return parse(file.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
    except (FileNotFoundError, ValueError):
        return None
