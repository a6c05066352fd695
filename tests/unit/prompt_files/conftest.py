from collections.abc import Iterator
from pathlib import Path

import pytest

from prompt_folders import PromptFolder
from slotkeeper.prompt_files import folder as prompt_folder


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PromptFolder]:
    # The files of tests are small.
    monkeypatch.setattr(prompt_folder, "CHUNK_BYTES", 256)
    monkeypatch.setattr(prompt_folder, "READ_AHEAD_BYTES", 512)
    harness = PromptFolder(tmp_path)
    yield harness
    harness.close()
