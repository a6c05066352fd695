"""What a process has used, from /proc."""

import resource
from pathlib import Path
from typing import NamedTuple


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads so far, user and system, in seconds to the nanosecond.

    The kernel's own accounting where it keeps it; else ticks of 10 ms.
    """
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        # The command's name stands in brackets and may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


class Memory(NamedTuple):
    """Resident memory in MB."""

    now: float
    highest: float


def memory(pid: int) -> Memory:
    """The memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    now, highest = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(now, highest)


def allow_many_files() -> None:
    """As many open files as may be, for this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
