"""Background processes, identified by process id and start time.

They continue after the command that started them. The id alone is not enough, because the kernel
reuses it after the process has ended.
"""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provider.paths import write

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessIdentity:
    """Identifies one process, even after the kernel has reused its id."""

    pid: int
    started: int
    """Start time in clock ticks since boot."""
    boot: str
    """The kernel's boot id."""

    @classmethod
    def of(cls, pid: int, proc: Path = PROC) -> "ProcessIdentity | None":
        """Return the process that has this id now, None if there is none or only a zombie."""
        try:
            # The name, in parentheses, may itself contain spaces and parentheses.
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state = fields[0]
        started = fields[19]
        return None if state in "ZX" else cls(pid, int(started), boot)


@dataclass(frozen=True)
class ProcessRecord:
    """A started process and its command line."""

    identity: ProcessIdentity
    argv: tuple[str, ...]

    def alive(self, proc: Path = PROC) -> bool:
        """Whether this process still runs."""
        return ProcessIdentity.of(self.identity.pid, proc) == self.identity


class Processes:
    """Processes recorded in a folder, one file each."""

    def __init__(self, folder: Path, proc: Path = PROC) -> None:
        self._folder = folder
        self._proc = proc

    def recorded(self) -> dict[str, ProcessRecord]:
        """Return all recorded processes by name, running or not."""
        if not self._folder.exists():
            return {}
        files = sorted(self._folder.glob("*.json"))
        return {file.stem: record for file in files if (record := _read(file)) is not None}

    def running(self) -> dict[str, ProcessRecord]:
        """Return the recorded processes that still run, by name."""
        recorded = self.recorded().items()
        return {name: record for name, record in recorded if record.alive(self._proc)}

    def ensure(
        self,
        name: str,
        argv: Sequence[str],
        *,
        prefix: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
    ) -> bool:
        """Start `prefix` + `argv` unless it already runs with this `argv`.

        If it runs with another command line, it is stopped first. `prefix` must exec the rest, so
        that the process id stays the same. Return whether a process was started.
        """
        running = self.running().get(name)
        if running is not None and running.argv == tuple(argv):
            return False
        if running is not None:
            stop(running.identity)
        log.parent.mkdir(parents=True, exist_ok=True)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        command = [*prefix, *argv]
        pid = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ),
            setsid=True,
        )
        identity = ProcessIdentity.of(pid)
        if identity is not None:
            self.record(name, ProcessRecord(identity, tuple(argv)))
        return True

    def record(self, name: str, record: ProcessRecord) -> None:
        """Write the record of a process."""
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
        """Kill all recorded processes that still run, and delete the records."""
        for record in self.running().values():
            stop(record.identity)
        for file in self._folder.glob("*.json"):
            file.unlink()


def stop(identity: ProcessIdentity, timeout: float = 20.0) -> None:
    """Kill this process with SIGKILL: every process started here must survive a crash anyway.

    Raises TimeoutError if it has not ended after `timeout` seconds.
    """
    try:
        # A pidfd refers to this process even if its id is reused.
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        if ProcessIdentity.of(identity.pid) != identity:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + timeout
    while ProcessIdentity.of(identity.pid) == identity:
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {identity.pid} still runs {timeout:.0f} s after SIGKILL")
        time.sleep(0.01)


def _read(file: Path) -> ProcessRecord | None:
    try:
        tree = json.loads(file.read_text())
        identity = ProcessIdentity(int(tree["pid"]), int(tree["started"]), str(tree["boot"]))
        return ProcessRecord(identity, tuple(tree["argv"]))
    except (ValueError, KeyError, TypeError):
        # Truncated by a crash of the machine, which also ended the process.
        return None
