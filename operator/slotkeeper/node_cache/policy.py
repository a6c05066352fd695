"""What to remove from a node's cache. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from slotkeeper.folder_descriptor import Disk
from slotkeeper.node_folder import Limits

DEAD_NS = 3600 * 10**9
"""Age from which an incomplete model without a pod is removed, whatever the limits: its download
is not continued. Not at once, since the next pod would resume it."""


class Mark(NamedTuple):
    """The last use of a model, as its lock file shows it."""

    file: str
    inode: int
    used_ns: int


@dataclass(frozen=True)
class Entry:
    """The files of one model in the folder of a namespace, which are removed together."""

    namespace: str
    name: str
    """The content ID."""
    marks: tuple[Mark, ...]
    """Of its lock files: one, unless others than the downloader write to the folder."""
    used_ns: int
    """Time of the last use in nanoseconds. Without a lock file, of the last change."""
    size: int = 0
    """Bytes on the disk."""
    files: int = 1
    complete: bool = True
    """Whether all its files are, so that no download of it was interrupted."""
    requested: int = 0
    """Free bytes that a running download of it lacks."""


@dataclass(frozen=True)
class Plan:
    """The removals of one sweep."""

    remove: tuple[Entry, ...]
    """In order."""
    excess: int
    """Bytes above the limits after them: the files in use do not fit."""


def plan(
    entries: Iterable[Entry],
    is_used: Callable[[Entry], bool],
    limits: Limits,
    disk: Disk,
    now_ns: int,
) -> Plan:
    """Return what to remove: the least recently used models, until the others are within limits.

    | entry                                        | is removed                              |
    | used by a pod, or being downloaded           | never                                   |
    | incomplete, and not used for an hour         | always                                  |
    | any other                                    | while the cache exceeds its limit, or   |
    |                                              | the disk has less free than it must;    |
    |                                              | the least recently used first           |
    """
    entries = list(entries)
    idle = (each for each in entries if not each.requested and not is_used(each))
    unused = sorted(idle, key=lambda each: (_last_use(each, now_ns), each.namespace, each.name))
    free = disk.free - limits.reserved_bytes(disk.total)
    excess = max(
        sum(each.size for each in entries) - limits.max_bytes,
        granted(entries, free + sum(each.size for each in unused)) - free,
    )
    remove = []
    for entry in unused:
        is_dead = not entry.complete and now_ns - _last_use(entry, now_ns) > DEAD_NS
        if is_dead:
            remove.append(entry)
            excess -= entry.size
    for entry in unused:
        # Nothing is gained by the removal of an empty one.
        if excess > 0 and entry.size and entry not in remove:
            remove.append(entry)
            excess -= entry.size
    return Plan(tuple(remove), max(0, excess))


def granted(entries: Iterable[Entry], possible: int) -> int:
    """Return the requested bytes, without requests that cannot be granted: a model host may
    announce any size, for which all unused models would be removed in vain."""
    total = 0
    for requested in sorted(each.requested for each in entries):
        if total + requested <= possible:
            total += requested
    return total


def _last_use(entry: Entry, now_ns: int) -> int:
    """The time of the last use; 0 if it is far in the future. The clock was wrong then, and the
    entry would be the last one to be removed until that time."""
    return entry.used_ns if entry.used_ns <= now_ns + DEAD_NS else 0
