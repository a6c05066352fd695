"""A download's surroundings, in which waiting takes no time."""

from pathlib import Path

import httpx
import pytest

from slotkeeper.download.download import Environment, File, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.partial_file import Open, open_file
from slotkeeper.download.records import FileRecord

FINISHED = {"model.gguf", "model.gguf.json"}
RESUMABLE = {"model.gguf.part", "model.gguf.part.json"}


class World:
    """One place for a model, and all the time there is."""

    def __init__(self, client: httpx.Client, path: Path) -> None:
        self.path = path
        self.waits: list[float] = []
        self._client = client

    def fetch(self, url: str, sha256: str | None = None, opener: Open = open_file) -> FileRecord:
        outside = Environment(
            client=self._client,
            clock=lambda: sum(self.waits),
            sleep=self.waits.append,
            chance=lambda: 0.0,
            opener=opener,
        )
        return download(File(url, self.path, sha256), outside)

    def fails(self, url: str, sha256: str | None = None, opener: Open = open_file) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            self.fetch(url, sha256, opener)
        return caught.value

    @property
    def left(self) -> set[str]:
        """Names of the files in the folder, less the lock."""
        return {file.name for file in self.path.parent.iterdir()} - {"model.gguf.lock"}
