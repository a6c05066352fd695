"""A cluster's own control groups: everything that it started is in them, pods included."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
PATIENCE = 20.0
"""Seconds that killed processes may take to be gone."""


@dataclass(frozen=True)
class Hierarchy:
    """Where one hierarchy of control groups is mounted."""

    mount: Path
    unified: bool
    """Version 2 rather than 1."""
    controllers: tuple[str, ...]


@dataclass(frozen=True)
class Cgroup:
    """The control group `path`, in every hierarchy that the machine has."""

    path: str

    def create(self) -> None:
        """Make it, ready to be limited and counted in."""
        for hierarchy in hierarchies():
            folder = hierarchy.mount
            for part in Path(self.path).parts[1:]:
                if hierarchy.unified:
                    _delegate(folder)
                folder /= part
                folder.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _inherit_cpus(folder)

    def joining(self) -> list[str]:
        """A command line prefix that moves itself in here and then becomes what follows."""
        files = (
            str(hierarchy.mount / self.path[1:] / "cgroup.procs") for hierarchy in hierarchies()
        )
        moves = "".join(f"echo $$ >{file} && " for file in files)
        return ["/bin/sh", "-c", f'{moves}exec "$@"', "sh"]

    def processes(self) -> set[int]:
        """The ids of all processes in it and below it."""
        found: set[int] = set()
        for folder in self._folders():
            try:
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
            except OSError:
                continue  # gone in between
        return found

    def kill(self) -> None:
        """End everything in it and below it at once. Raises TimeoutError if something stays."""
        deadline = time.monotonic() + PATIENCE
        while processes := self.processes():
            for pid in processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {sorted(processes)} do not end")
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove it and what is below it, and its parents if nothing else is in them."""
        for folder in self._folders():
            _remove_one(folder)
        for hierarchy in hierarchies():
            for parent in list(Path(self.path).parents)[:-1]:
                _remove_one(hierarchy.mount / str(parent)[1:])

    def memory(self) -> int | None:
        """Bytes of memory in use by all of it, files that can be dropped left out."""
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
        """Its folder and those below it in every hierarchy, the deepest first."""
        for hierarchy in hierarchies():
            for folder, _, _ in os.walk(hierarchy.mount / self.path[1:], topdown=False):
                yield Path(folder)


def hierarchies(mounts: Path = MOUNTS) -> list[Hierarchy]:
    """The mounted hierarchies: one of version 2, or some of version 1 and perhaps one of 2."""
    found = {}
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            mount = Path(before.split()[4])
            found[mount] = Hierarchy(mount, kind == "cgroup2", tuple(options.split(",")))
    return list(found.values())


def _delegate(folder: Path) -> None:
    """Let the groups below use all controllers that this one has."""
    controllers = (folder / "cgroup.controllers").read_text().split()
    if controllers:
        order = " ".join(f"+{controller}" for controller in controllers)
        (folder / "cgroup.subtree_control").write_text(order)


def _inherit_cpus(folder: Path) -> None:
    """Fill in the processors and memory nodes, without which nothing can join."""
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
            # Busy for a moment after its last process, or for good with another cluster's groups.
            if time.monotonic() > deadline or any(item.is_dir() for item in folder.iterdir()):
                return
            time.sleep(0.02)
