"""A download into the cache of a node: its limits, and how it requests room."""

import fcntl
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.storage import StorageLimits
from slotkeeper.node_folder import LIMITS_FILE, MAX_LIMITS_BYTES, ROOM_SUFFIX, Limits, mark_used

ROOM_SECONDS = 60
"""How long to wait for the agent to remove unused files. It needs about ten seconds."""

SIZE_LIMIT = "the node's cache (chart value nodeCache.sizeLimit)"


@dataclass(frozen=True)
class NodeCache:
    """The cache of the node that this runs on."""

    limits: Limits
    sleep: Callable[[float], None]
    disk: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage
    """Total, used and free bytes."""

    def storage_limits(self, max_file_bytes: int) -> StorageLimits:
        """Return the limits of a file and of all files of a model, which must not be larger than
        the whole cache either."""
        exceeds_cache = max_file_bytes > self.limits.max_bytes
        return StorageLimits(
            min(max_file_bytes, self.limits.max_bytes),
            free_bytes=self.free_bytes,
            limit_name=SIZE_LIMIT if exceeds_cache else StorageLimits.limit_name,
            make_room=self.make_room,
            all_files_bytes=self.limits.max_bytes,
            all_files_limit_name=SIZE_LIMIT,
            shared=True,
        )

    def free_bytes(self, folder: Path) -> int:
        """Return the bytes that may be written."""
        total, _, free = self.disk(folder)
        return max(0, free - self.limits.reserved_bytes(total))

    def make_room(self, part: Path, missing: int) -> None:
        """Request room for the missing bytes of a partial file, and wait until it is there.

        Returns after ROOM_SECONDS without it.
        """
        request = part.with_name(part.name + ROOM_SUFFIX)
        with request.open("w", encoding="ascii") as file:
            # The kernel releases the lock if this process is killed, whose request then ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(str(missing))
            file.flush()
            try:
                for _ in range(ROOM_SECONDS):
                    if self.free_bytes(part.parent) >= missing:
                        return
                    self.sleep(1)
            finally:
                request.unlink(missing_ok=True)


def read_limits(folder: Path) -> Limits:
    """Return the limits that the agent wrote into the folder. Raises DownloadError."""
    try:
        with (folder / LIMITS_FILE).open("rb") as file:
            limits = Limits.from_json(file.read(MAX_LIMITS_BYTES))
    except OSError:
        limits = None
    if limits is None:
        raise DownloadError(
            Reason.STORAGE_ERROR,
            "the cache of this node is not ready: check that a pod of Slotkeeper's DaemonSet "
            "(chart value nodeCache) runs on it",
        )
    return limits


def mark(lock: int) -> None:
    """Mark a model as used now, by the descriptor of its lock."""
    mark_used(lock, time.time_ns())
