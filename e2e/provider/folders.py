"""Empty folders of the host that clusters lay their own over: made if missing, removed again."""

import json
from collections.abc import Iterable
from pathlib import Path

from provider.places import RUNNING, locked, states, write


def make(paths: Iterable[Path]) -> None:
    """Make those that are not there, and remember which of them are ours."""
    with locked("folders"):
        for path in paths:
            if not path.exists():
                path.mkdir(parents=True)
                write(_record(), json.dumps([*_ours(), str(path)]))


def remove() -> None:
    """Remove ours once no cluster is left, and those that clusters were kept in."""
    with locked("folders"):
        bases = [base for base in (RUNNING, states()) if base.exists()]
        if any(folder.is_dir() for base in bases for folder in base.iterdir()):
            return
        for path in map(Path, _ours()):
            if path.exists() and not any(path.iterdir()):
                path.rmdir()
        _record().unlink(missing_ok=True)
        for base in bases:
            base.rmdir()


def _ours() -> list[str]:
    if not _record().exists():
        return []
    known: list[str] = json.loads(_record().read_text())
    return known


def _record() -> Path:
    return states() / ".made-folders.json"
