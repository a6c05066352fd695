import logging
from pathlib import Path

import pytest

from slotkeeper.download.partial_file import PartialFile
from slotkeeper.download.progress import Progress


def test_a_line_with_bytes_total_and_speed_is_logged_every_ten_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    with PartialFile(tmp_path / "model.part", "source") as part:
        progress = Progress(lambda: now)
        part.restart(validator=None, total=50_000_000)
        progress.started(part)
        for _ in range(4):
            now += 5
            part.append(bytes(10_000_000))
            progress.received(part)

    assert caplog.messages == [
        "downloading: 0 of 50000000 bytes",
        "downloaded: 20000000 of 50000000 bytes, 2.0 MB/s",
        "downloaded: 40000000 of 50000000 bytes, 2.0 MB/s",
    ]


def test_an_unknown_total_is_omitted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with PartialFile(tmp_path / "model.part", "source") as part:
        part.restart(validator=None, total=None)
        part.append(b"GGUF")
        Progress(lambda: 0.0).started(part)

    assert caplog.messages == ["downloading: 4 bytes"]


def test_of_a_header_the_size_of_the_file_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    with PartialFile(tmp_path / "model.part", "source") as part:
        progress = Progress(lambda: now, header=True)
        part.restart(validator=None, total=50_000_000)
        progress.started(part)
        now += 10
        part.append(bytes(10_000_000))
        progress.received(part)

    assert caplog.messages == ["received for the header: 10000000 bytes, 1.0 MB/s"]
