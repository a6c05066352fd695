"""Where things lie: the cache that all clusters share, and each cluster's own folders."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "e2e/tools"
RUNNING = Path("/run/slotkeeper")

NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
"""A cluster's name: short, since it is part of names that Docker and the kernel bound."""


def cache() -> Path:
    """What is kept between clusters: binaries, images, how long things took."""
    return _home("XDG_CACHE_HOME", ".cache") / "slotkeeper"


def states() -> Path:
    """The folder of all clusters' states."""
    return _home("XDG_STATE_HOME", ".local/state") / "slotkeeper"


@dataclass(frozen=True)
class Place:
    """The folders of the cluster `name`."""

    name: str

    @property
    def state(self) -> Path:
        """What outlives a reboot: data, keys, logs."""
        return states() / self.name

    @property
    def run(self) -> Path:
        """What a reboot ends: namespaces, process records, sockets (whose paths must be short)."""
        return RUNNING / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        """One log for each component."""
        return self.state / "logs"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file's text in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.chmod(mode)
    aside.rename(path)


@contextmanager
def locked(subject: str) -> Iterator[None]:
    """Hold the lock of this subject; a second caller, in any process, waits."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / subject).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)
