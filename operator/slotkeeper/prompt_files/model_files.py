"""A fingerprint of the model's files: prompt files of another model are not restored."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

SAMPLES = 64
"""Per file, evenly distributed. To read all would take as long as to load the model."""
SAMPLE_BYTES = 64 * 1024


class ModelFiles:
    """The model's files, which may not exist yet when the agent starts."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._fingerprint: str | None = None if paths else ""

    def fingerprint(self) -> str:
        """Return the fingerprint, of the first call that succeeds. Raises OSError.

        Empty without files. A file that is replaced under the same path, with another content of
        the same size, has another fingerprint.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for path in self._paths:
                _add(digest, path)
            self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint


def _add(digest: "hashlib._Hash", path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        digest.update(b"%d\n" % size)
        last = max(0, size - SAMPLE_BYTES)
        for offset in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
            digest.update(os.pread(descriptor, SAMPLE_BYTES, offset))
    finally:
        os.close(descriptor)
