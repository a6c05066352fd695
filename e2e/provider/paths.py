"""Paths: the cache that all clusters share, and each cluster's own folders."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "e2e/tools"
RUN_DIRECTORY = Path("/run/slotkeeper")

NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
"""A cluster's name: short, because it is part of names whose length Docker and the kernel limit."""


def cache() -> Path:
    """Return the folder of what clusters share: binaries, images, durations of earlier steps."""
    return _home("XDG_CACHE_HOME", ".cache") / "slotkeeper"


def state_directory() -> Path:
    """Return the parent folder of all clusters' state."""
    return _home("XDG_STATE_HOME", ".local/state") / "slotkeeper"


@dataclass(frozen=True)
class ClusterPaths:
    """Folders and files of the cluster `name`."""

    name: str

    @property
    def state(self) -> Path:
        """Folder of what stays after a reboot: data, keys, logs."""
        return state_directory() / self.name

    @property
    def run(self) -> Path:
        """Folder of what a reboot removes: namespaces, process records, sockets (whose paths must
        be short)."""
        return RUN_DIRECTORY / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        """Folder with one log for each component."""
        return self.state / "logs"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file's text atomically, unless it is the same."""
    # A mounted file, such as resolv.conf, could not be mounted once more if it was replaced.
    if path.is_file() and path.stat().st_mode & 0o777 == mode and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.rename(path)


@contextmanager
def locked(subject: str) -> Iterator[None]:
    """Hold a lock that is exclusive among all processes, named `subject`; wait for it if needed."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / subject).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)
