"""Runs downloads into one folder, with simulated time."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.partial_file import Open, open_file
from slotkeeper.download.records import FileRecord
from slotkeeper.download.storage import StorageLimits

COMPLETE = {"model.gguf", "model.gguf.json"}
RESUMABLE = {"model.gguf.part", "model.gguf.part.json"}
REJECTED = {"model.gguf.rejected.json"}


class DownloadHarness:
    """Downloads to one path. Delays take no time and are recorded."""

    def __init__(self, client: httpx.Client, path: Path) -> None:
        self.path = path
        self.limits = StorageLimits()
        self.always_verify = False
        self.fast: float | None = None
        self.delays: list[float] = []
        self.clock: Callable[[], float] = lambda: sum(self.delays)
        self._client = client

    def download(self, url: str, sha256: str | None = None, opener: Open = open_file) -> FileRecord:
        environment = Environment(
            client=self._client,
            clock=self.clock,
            sleep=self.delays.append,
            chance=lambda: 0.0,
            opener=opener,
            limits=self.limits,
            fast=self.fast,
            always_verify=self.always_verify,
        )
        return download(File(url, self.path, sha256), environment)

    def download_error(
        self, url: str, sha256: str | None = None, opener: Open = open_file
    ) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            self.download(url, sha256, opener)
        return caught.value

    @property
    def files(self) -> set[str]:
        """Names of the files in the folder, without the lock."""
        return {file.name for file in self.path.parent.iterdir()} - {"model.gguf.lock"}
