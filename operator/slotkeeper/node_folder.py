"""The folder of a node's cache, as the downloader and the agent of the node agree on it.

The folder has a folder for each namespace. A model's files there begin with its content ID; next to
the first of them is a lock file, whose modification time is the model's last use.
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Self

from slotkeeper.bounded_json import parse

LIMITS_FILE = ".node-cache.json"
"""Written by the agent into the folder of each namespace: not an argument of each download, so that
another limit restarts no replica."""

LOCK_SUFFIX = ".lock"

ROOM_SUFFIX = ".room"
"""Of the file by which a download requests free bytes while the disk is full. It holds its lock as
long as it waits."""

MAX_LIMITS_BYTES = 4096

_CONTENT_ID = re.compile("(?:sha256|parts|url)-[0-9a-f]{64}")


def content_id(file_name: str) -> str | None:
    """Return what the files of one model have in common; None for the name of another file."""
    found = _CONTENT_ID.match(file_name)
    return found and found[0]


def content_ids(text: str) -> set[str]:
    """Return all content IDs in a text, such as an argument."""
    return set(_CONTENT_ID.findall(text))


@dataclass(frozen=True)
class Limits:
    """The limits of the cache on one node, for all namespaces together."""

    max_bytes: int
    """Of all files."""
    min_free_percent: int
    """Part of the disk that is left free. The kubelet evicts pods below 10 % by default."""

    def to_json(self) -> str:
        """Return the content of LIMITS_FILE."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Self | None:
        """Parse the content of LIMITS_FILE; None if it is malformed."""
        try:
            tree = parse(text, max_bytes=MAX_LIMITS_BYTES)
        except ValueError:
            return None
        match tree:
            case {"max_bytes": int(max_bytes), "min_free_percent": int(min_free_percent)}:
                return cls(max_bytes, min_free_percent)
            case _:
                return None

    def reserved_bytes(self, disk_bytes: int) -> int:
        """Return the bytes to be left free of a disk of this size."""
        return disk_bytes * self.min_free_percent // 100


def mark_used(lock: int, now_ns: int) -> None:
    """Mark a model as used at this time, by the descriptor of its lock file.

    The mark always changes and never decreases, also if the clock is set back: see
    `node_cache.folder`.
    """
    later = max(now_ns, os.fstat(lock).st_mtime_ns + 1)
    os.utime(lock, ns=(later, later))
