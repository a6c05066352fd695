"""Which prompt files to remove. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from slotkeeper.folder_descriptor import Disk
from slotkeeper.node_folder import Limits

MAX_FILES = 4096
"""Of the whole folder, whatever their size."""

_SECOND_NS = 10**9

IDLE_NS = 3600 * _SECOND_NS
"""Time without use from which the files of an identity are removed before those of others: it is
that of an earlier spec, or of a server without replicas."""

EXPIRED_NS = 24 * 3600 * _SECOND_NS
"""Time without use from which an identity is removed with all its files."""

ONCE_NS = 3600 * _SECOND_NS
"""A file whose prompt was sent only once counts as last used so long before it was saved: many such
prompts, as of a batch, must not push out those that are sent again and again."""

PART_NS = 600 * _SECOND_NS
"""Age from which a file that llama-server has not completed is removed. A save takes seconds."""


class Reason(StrEnum):
    """Why a file was removed: a label of the metric."""

    SIZE_LIMIT = "size_limit"
    DISK_FULL = "disk_full"
    FILE_COUNT = "file_count"
    EXPIRED = "expired"
    """Of an identity that was not used for a day."""
    INCOMPLETE = "incomplete"
    """Left by a process that was killed."""
    INVALID = "invalid"
    """It is not what was announced or recorded."""
    REQUESTED = "requested"
    """By the balancer."""


@dataclass(frozen=True)
class StoredFile:
    """A complete prompt file with its record."""

    identity: str
    name: str
    bytes: int
    """On the disk, with its record."""
    used_ns: int
    """Time of its last use."""


@dataclass(frozen=True)
class Contents:
    """What the folder contains."""

    files: tuple[StoredFile, ...]
    used_bytes: int
    """Of all files, also of those that are being written."""
    disk: Disk
    identities: Mapping[str, int]
    """Time of the last use of each."""


@dataclass(frozen=True)
class Plan:
    """The files to remove."""

    remove: tuple[StoredFile, ...]
    """In order."""
    reason: Reason | None
    """The limit that is exceeded; None if there is room."""
    fits: bool
    """Whether the limits are kept after the removals."""


def plan(contents: Contents, limits: Limits, added_bytes: int, now_ns: int) -> Plan:
    """Return the files to remove so that the folder, with `added_bytes` more, keeps its limits.

    | file                                                      | is removed |
    | of an identity that was not used for an hour              | first      |
    | of any other identity, its own or not                     | then       |
    | among these, the one whose last use is the longest ago    | first      |

    An identity is in use as long as an agent of it runs. Only as many are removed as needed.
    """
    disk = contents.disk
    above_limit = contents.used_bytes + added_bytes - limits.max_bytes
    above_disk = added_bytes - (disk.free - limits.reserved_bytes(disk.total))
    above_count = len(contents.files) + bool(added_bytes) - MAX_FILES
    reason = _reason(above_limit, above_disk, above_count)
    above_bytes = max(above_limit, above_disk)

    def order(file: StoredFile) -> tuple[bool, int, str, str]:
        in_use = now_ns - contents.identities.get(file.identity, 0) < IDLE_NS
        return in_use, file.used_ns, file.identity, file.name

    remove = []
    for file in sorted(contents.files, key=order):
        if above_bytes <= 0 and above_count <= 0:
            break
        remove.append(file)
        above_bytes -= file.bytes
        above_count -= 1
    return Plan(tuple(remove), reason, above_bytes <= 0 and above_count <= 0)


def _reason(above_limit: int, above_disk: int, above_count: int) -> Reason | None:
    if above_limit > 0:
        return Reason.SIZE_LIMIT
    if above_disk > 0:
        return Reason.DISK_FULL
    return Reason.FILE_COUNT if above_count > 0 else None


def is_expired(used_ns: int, now_ns: int) -> bool:
    """Return whether an identity whose last use was then is removed."""
    return now_ns - used_ns > EXPIRED_NS


def is_abandoned(changed_ns: int, now_ns: int) -> bool:
    """Return whether a file that is being written, whose last change was then, is removed.

    Also if that is in the future: the clock was set back, or is another node's.
    """
    return abs(now_ns - changed_ns) > PART_NS
