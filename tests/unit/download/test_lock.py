import logging
from pathlib import Path
from threading import Event, Thread

import httpx
from typing_extensions import override

from model_host import ModelHost, content
from slotkeeper.download.download import Environment, download
from slotkeeper.download.files import File
from slotkeeper.download.lock import file_lock


class WaitDetector(logging.Handler):
    """Detects that a process waits for a lock."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.detected = Event()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.detected.set()


def test_of_two_concurrent_downloads_one_waits_and_reuses_the_file(
    host: ModelHost, client: httpx.Client, path: Path
) -> None:
    host.respond_with(content())
    model = File(host.url, path)
    environment = Environment(client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0)
    download(model, environment)
    complete = {file: file.read_bytes() for file in (path, path.with_name("model.gguf.json"))}
    for file in complete:
        file.unlink()

    log, waiting = logging.getLogger("slotkeeper.download.lock"), WaitDetector()
    log.setLevel(logging.INFO)
    log.addHandler(waiting)
    other = Thread(target=download, args=(model, environment))
    with file_lock(path.with_name("model.gguf.lock")):
        other.start()
        assert waiting.detected.wait(10)
        for file, written in complete.items():
            file.write_bytes(written)
    other.join(10)
    log.removeHandler(waiting)
    log.setLevel(logging.NOTSET)

    assert not other.is_alive()
    assert len(host.requests) == 1
