"""Servers with a prompt cache in a test: their files, and how their llama-server is killed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pod_processes import kill_process
from servers import Server

SECONDS = 60


def prompt_files(volume: Path) -> list[Path]:
    """Return the files of saved slots that are complete."""
    return [path for path in volume.rglob("*") if path.is_file() and len(path.name) == 32]


def kill_llama_server(server: Server) -> None:
    """Kill the process of the only replica, as a node does that runs out of memory; wait until
    another one is ready."""
    uid = _replica(server)["metadata"]["uid"].replace("-", "_")
    kill_process(
        lambda arguments, cgroup: "--ctx-size" in arguments and uid in cgroup.replace("-", "_")
    )
    wait_for(lambda: _restarts(server), lambda count: count == 1)


def wait_for(
    read: Callable[[], Any], condition: Callable[[Any], bool], *, seconds: float = SECONDS
) -> Any:
    """Return what `read` returns, once it satisfies the condition."""
    deadline = time.monotonic() + seconds
    while not condition(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def _replica(server: Server) -> dict[str, Any]:
    [pod] = server.pods("replica")
    return pod


def _restarts(server: Server) -> int:
    [status] = [
        each
        for each in _replica(server)["status"]["containerStatuses"]
        if each["name"] == "llama-server"
    ]
    return int(status["restartCount"]) if status["ready"] else 0
