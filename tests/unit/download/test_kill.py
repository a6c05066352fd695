"""A download whose process is killed at any moment ends whole at the next start."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event, Lock

import httpx
import pytest

from download_harness import DownloadHarness
from model_host import ModelHost
from ranged_model import RangedModel, large_model
from slotkeeper.download.ranges import SEGMENT_BYTES

KILLS = 30
BODY = large_model(6 * SEGMENT_BYTES + 4321)
SHA256 = hashlib.sha256(BODY).hexdigest()
MAX_MEMORY_KB = 64 * 1000


PIECE_SECONDS = 0.01
"""Pause of a host that is so slow that it gets several connections."""


class Killer:
    """Kills a process once a number of bytes was sent to it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.remaining = 0
        self.slow = False
        self._lock = Lock()
        self._never = Event()

    def sent(self, size: int) -> None:
        if self.slow:
            self._never.wait(PIECE_SECONDS)
        with self._lock:
            self.remaining -= size
            if self.process and self.remaining <= 0:
                self.process.kill()


@pytest.fixture
def killer(host: ModelHost) -> Iterator[Killer]:
    killer = Killer()
    host.respond_with(RangedModel(BODY, sent=killer.sent))
    yield killer
    if killer.process:
        killer.process.kill()
        killer.process.wait()


def test_a_process_that_is_killed_at_random_moments_is_continued(
    host: ModelHost, killer: Killer, tmp_path: Path, client: httpx.Client
) -> None:
    random = Random(17)
    path = tmp_path / "killed" / "model.gguf"
    endings = {"killed": 0, "resumed": 0, "finished before": 0}
    for number in range(KILLS):
        killer.remaining = random.randrange(len(BODY) // 2)
        killer.slow = number % 2 == 0
        with start(host, path) as killer.process:
            code = killer.process.wait(60)
        killer.process, killer.remaining, killer.slow = None, sys.maxsize, False
        endings["killed" if code else "finished before"] += 1
        part = path.with_name("model.gguf.part")
        kept = part.read_bytes() if part.exists() else b""
        assert kept == BODY[: len(kept)]
        endings["resumed"] += len(kept) > SEGMENT_BYTES

        # The next start, on a copy: the killed download itself goes on.
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(path.parent, copy) if path.parent.exists() else copy.mkdir()
        DownloadHarness(client, copy / "model.gguf").download(host.url, SHA256)
        assert (copy / "model.gguf").read_bytes() == BODY
        shutil.rmtree(copy)
        if path.exists():
            assert path.read_bytes() == BODY
            shutil.rmtree(path.parent)

    logging.getLogger(__name__).info("%d starts: %s", KILLS, endings)
    assert endings["killed"] >= KILLS // 2
    assert endings["resumed"] >= KILLS // 6


def test_the_process_takes_little_memory(host: ModelHost, tmp_path: Path) -> None:
    host.respond_with(RangedModel(BODY))
    path = tmp_path / "model.gguf"
    # Not ru_maxrss, which is that of the parent if this was larger.
    script = """
import sys
from slotkeeper.download.main import main
assert main(sys.argv[1:]) == 0
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments(host, path)], capture_output=True, check=True
    )

    record = json.loads(path.with_name("model.gguf.json").read_text())
    assert record["sha256"] == SHA256
    assert int(done.stdout.split()[-1]) < MAX_MEMORY_KB


def arguments(host: ModelHost, path: Path) -> list[str]:
    files = ["--model", host.url, "--sha256", SHA256, "--to", str(path)]
    return [*files, "--progress-port", "0"]


def start(host: ModelHost, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "slotkeeper", "download", *arguments(host, path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
