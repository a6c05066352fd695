"""Kills a process of a pod, as a node does that runs out of memory. The pods' processes are also
processes of the machine with the test cluster."""

import os
import signal
from collections.abc import Callable
from pathlib import Path


def kill_process(is_meant: Callable[[list[str], str], bool]) -> None:
    """Kill a process by SIGKILL. `is_meant` gets the arguments and the cgroup of each one.

    Raises LookupError if there is none.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text().split("\0")
            cgroup = (folder / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if is_meant(arguments, cgroup):
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise LookupError("no such process runs")
