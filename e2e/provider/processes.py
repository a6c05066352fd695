"""Processes that outlive the command that started them, and are found again by id and start time.

An id alone is not enough: the kernel gives it to another process once the first has ended.
"""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provider.places import write

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """One process, told apart from any other that ever had its id."""

    pid: int
    started: int
    """Clock ticks from the machine's start to the process's."""
    boot: str
    """The kernel's name for this start of the machine."""

    @classmethod
    def of(cls, pid: int, proc: Path = PROC) -> "Identity | None":
        """The process that has this id now; None when there is none, or only its exit status."""
        try:
            # The name, in parentheses, may hold spaces and parentheses of its own.
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state = fields[0]
        started = fields[19]
        return None if state in "ZX" else cls(pid, int(started), boot)


@dataclass(frozen=True)
class Record:
    """A process that was started, and the command line that it was started with."""

    identity: Identity
    argv: tuple[str, ...]

    def alive(self, proc: Path = PROC) -> bool:
        """Whether that very process still runs."""
        return Identity.of(self.identity.pid, proc) == self.identity


class Processes:
    """The processes recorded in a folder, one file each."""

    def __init__(self, folder: Path, proc: Path = PROC) -> None:
        self._folder = folder
        self._proc = proc

    def recorded(self) -> dict[str, Record]:
        """All that were started, by name, whether they still run or not."""
        if not self._folder.exists():
            return {}
        files = sorted(self._folder.glob("*.json"))
        return {file.stem: record for file in files if (record := _read(file)) is not None}

    def running(self) -> dict[str, Record]:
        """Those that still run."""
        found = self.recorded().items()
        return {name: record for name, record in found if record.alive(self._proc)}

    def ensure(
        self,
        name: str,
        argv: Sequence[str],
        *,
        prefix: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
    ) -> bool:
        """Start `argv` behind `prefix`, unless it runs already with this command line.

        One that runs with another command line is stopped first. `prefix` must end in the same
        process that it begins in. Returns whether a process was started.
        """
        running = self.running().get(name)
        if running is not None and running.argv == tuple(argv):
            return False
        if running is not None:
            stop(running.identity)
        log.parent.mkdir(parents=True, exist_ok=True)
        appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        command = [*prefix, *argv]
        pid = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), appended, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ),
            setsid=True,
        )
        identity = Identity.of(pid)
        if identity is not None:
            self.record(name, Record(identity, tuple(argv)))
        return True

    def record(self, name: str, record: Record) -> None:
        """Remember a process."""
        text = json.dumps(
            {
                "pid": record.identity.pid,
                "started": record.identity.started,
                "boot": record.identity.boot,
                "argv": record.argv,
            }
        )
        write(self._folder / f"{name}.json", text)

    def stop_all(self) -> None:
        """End all that still run, and forget them."""
        for record in self.running().values():
            stop(record.identity)
        for file in self._folder.glob("*.json"):
            file.unlink()


def stop(identity: Identity, patience: float = 20.0) -> None:
    """End this very process at once: whatever is started here has to come through that anyway.

    Raises TimeoutError if it is not gone after `patience` seconds.
    """
    try:
        # A descriptor of the process itself: from here on its id cannot pass to another.
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        if Identity.of(identity.pid) != identity:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + patience
    while Identity.of(identity.pid) == identity:
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {identity.pid} does not end")
        time.sleep(0.01)


def _read(file: Path) -> Record | None:
    try:
        found = json.loads(file.read_text())
        identity = Identity(int(found["pid"]), int(found["started"]), str(found["boot"]))
        return Record(identity, tuple(found["argv"]))
    except (ValueError, KeyError, TypeError):
        # Cut off by a crash of the machine: what it named is gone with it.
        return None
