"""A cluster's control groups. All of its processes are in them, pods included."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
KILL_TIMEOUT = 20.0
"""Seconds until killed processes must have ended."""


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy."""

    mount: Path
    unified: bool
    """Whether it is cgroup v2; otherwise v1."""
    controllers: tuple[str, ...]


@dataclass(frozen=True)
class Cgroup:
    """The control group `path` in every hierarchy of the machine."""

    path: str

    def create(self) -> None:
        """Create it with all controllers enabled."""
        for hierarchy in hierarchies():
            folder = hierarchy.mount
            for part in Path(self.path).parts[1:]:
                if hierarchy.unified:
                    _delegate(folder)
                folder /= part
                folder.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _inherit_cpus(folder)

    def join_command(self) -> list[str]:
        """Return a command prefix that moves its process into this group, then execs the rest."""
        files = (
            str(hierarchy.mount / self.path[1:] / "cgroup.procs") for hierarchy in hierarchies()
        )
        moves = "".join(f"echo $$ >{file} && " for file in files)
        return ["/bin/sh", "-c", f'{moves}exec "$@"', "sh"]

    def processes(self) -> set[int]:
        """Return the ids of all processes in this group and below."""
        pids: set[int] = set()
        for folder in self._folders():
            try:
                pids.update(map(int, (folder / "cgroup.procs").read_text().split()))
            except OSError:
                continue  # removed since it was listed
        return pids

    def kill(self) -> None:
        """Kill all processes in this group and below. Raises TimeoutError if some do not end."""
        deadline = time.monotonic() + KILL_TIMEOUT
        while processes := self.processes():
            for pid in processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"processes {sorted(processes)} still run {KILL_TIMEOUT:.0f} s after SIGKILL"
                )
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove this group and those below, and the parents that are empty then."""
        for folder in self._folders():
            _remove_one(folder)
        for hierarchy in hierarchies():
            for parent in list(Path(self.path).parents)[:-1]:
                _remove_one(hierarchy.mount / str(parent)[1:])

    def memory(self) -> int | None:
        """Return the group's memory usage in bytes, without inactive page cache; None if no memory
        controller is mounted."""
        for hierarchy in hierarchies():
            folder = hierarchy.mount / self.path[1:]
            for usage, inactive in (
                ("memory.usage_in_bytes", "total_inactive_file"),
                ("memory.current", "inactive_file"),
            ):
                if (folder / usage).exists():
                    lines = (folder / "memory.stat").read_text().splitlines()
                    stat = dict(line.split() for line in lines)
                    return int((folder / usage).read_text()) - int(stat.get(inactive, 0))
        return None

    def _folders(self) -> Iterator[Path]:
        """Yield its folders and those below in every hierarchy, deepest first."""
        for hierarchy in hierarchies():
            for folder, _, _ in os.walk(hierarchy.mount / self.path[1:], topdown=False):
                yield Path(folder)


def hierarchies(mounts: Path = MOUNTS) -> list[Hierarchy]:
    """Return the mounted hierarchies: one of v2, or several of v1 with at most one of v2."""
    by_mount = {}
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            mount = Path(before.split()[4])
            by_mount[mount] = Hierarchy(mount, kind == "cgroup2", tuple(options.split(",")))
    return list(by_mount.values())


def _delegate(folder: Path) -> None:
    """Enable all of this group's controllers for the groups below."""
    controllers = (folder / "cgroup.controllers").read_text().split()
    if controllers:
        enable = " ".join(f"+{controller}" for controller in controllers)
        (folder / "cgroup.subtree_control").write_text(enable)


def _inherit_cpus(folder: Path) -> None:
    """Copy the parent's CPUs and memory nodes: without them no process can join a v1 cpuset."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def _remove_one(folder: Path) -> None:
    deadline = time.monotonic() + 2
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            # Busy for a moment after its last process ended, or while another cluster's groups are
            # in it.
            if time.monotonic() > deadline or any(item.is_dir() for item in folder.iterdir()):
                return
            time.sleep(0.02)
