"""Mount points that the host lacks.

A cluster mounts its own folders over paths such as /var/lib/kubelet. Missing paths are created on
the host as empty folders, and removed with the last cluster.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from provider.paths import RUN_DIRECTORY, locked, state_directory, write


def create(paths: Iterable[Path]) -> None:
    """Create the missing folders and record them for `remove`."""
    with locked("folders"):
        for path in paths:
            if not path.exists():
                path.mkdir(parents=True)
                write(_record(), json.dumps([*_created(), str(path)]))


def remove() -> None:
    """If no cluster is left, remove the created folders and the clusters' parent folders."""
    with locked("folders"):
        bases = [base for base in (RUN_DIRECTORY, state_directory()) if base.exists()]
        if any(folder.is_dir() for base in bases for folder in base.iterdir()):
            return
        for path in map(Path, _created()):
            if path.exists() and not any(path.iterdir()):
                path.rmdir()
        _record().unlink(missing_ok=True)
        for base in bases:
            base.rmdir()


def _created() -> list[str]:
    if not _record().exists():
        return []
    paths: list[str] = json.loads(_record().read_text())
    return paths


def _record() -> Path:
    return state_directory() / ".made-folders.json"
