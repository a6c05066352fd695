"""CPU time and memory of a process, from /proc."""

import resource
from pathlib import Path
from typing import NamedTuple


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads so far, user and system, in seconds.

    From the scheduler's statistics, with nanosecond resolution; on kernels without them, in ticks
    of 10 ms.
    """
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        # The command's name is in parentheses and may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


class Memory(NamedTuple):
    """Resident memory in MB."""

    now: float
    highest: float


def memory(pid: int) -> Memory:
    """Return the memory usage of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    now, highest = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(now, highest)


def allow_many_files() -> None:
    """Raise the limit of open files to its maximum, for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
