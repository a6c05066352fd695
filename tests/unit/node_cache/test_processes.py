"""The agent beside real downloads, as processes: in any order, no file in use is removed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cached_models import name_of
from model_host import GGUF, ModelHost, content, model_host
from slotkeeper.folder_descriptor import Disk
from slotkeeper.node_cache.folder import Folder
from slotkeeper.node_cache.policy import Entry, plan
from slotkeeper.node_folder import Limits

LIMITS = Limits(10**12, 0)
NAMESPACE = "team"


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with model_host() as host:
        host.respond_with(content())
        yield host


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder(tmp_path) as folder:
        folder.prepare(NAMESPACE, LIMITS)
        yield folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / NAMESPACE / f"{name_of('a')}.gguf"


class Download:
    """The init container of a pod, as a process."""

    def __init__(self, host: ModelHost, path: Path) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "download", "--node-cache", path.parent),
                *("--model", host.url, "--to", path),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log = ""

    def wait_for(self, text: str) -> None:
        """Read the log up to a line with this text."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.log += line
            if text in line:
                return
        raise AssertionError(self.log)

    def succeeds(self) -> bool:
        """Wait for the end; whether the files are in place."""
        rest, _ = self._process.communicate(timeout=30)
        self.log += rest
        return self._process.returncode == 0

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        with self._process:
            self._process.kill()


def only_entry(folder: Folder) -> Entry:
    [entry] = folder.scan().entries
    return entry


def is_whole(model: Path) -> bool:
    return model.read_bytes() == GGUF and model.with_name(f"{model.name}.json").exists()


@contextmanager
def paused_download(host: ModelHost, model: Path) -> Iterator[tuple[Download, threading.Event]]:
    """A download that has its lock, and gets the file once the event is set."""
    requested, continued = threading.Event(), threading.Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        requested.set()
        assert continued.wait(30)
        content()(request)

    host.respond_with(reply)
    download = Download(host, model)
    try:
        assert requested.wait(30)
        host.respond_with(content())
        yield download, continued
    finally:
        continued.set()
        download.kill()


def test_a_model_is_kept_while_it_is_downloaded(
    host: ModelHost, folder: Folder, model: Path
) -> None:
    with paused_download(host, model) as (download, continued):
        assert not folder.remove(only_entry(folder))
        continued.set()
        assert download.succeeds()

    assert is_whole(model)


def test_a_model_is_kept_that_a_pod_has_found_since_the_agent_read_the_folder(
    host: ModelHost, folder: Folder, model: Path
) -> None:
    assert Download(host, model).succeeds()
    before = only_entry(folder)
    assert Download(host, model).succeeds()

    assert not folder.remove(before)
    assert is_whole(model)
    assert len(host.requests) == 1


def test_a_model_is_removed_that_no_pod_has_used_since(
    host: ModelHost, folder: Folder, model: Path
) -> None:
    assert Download(host, model).succeeds()

    assert folder.remove(only_entry(folder))
    assert not folder.scan().entries
    assert Download(host, model).succeeds()
    assert is_whole(model)
    assert len(host.requests) == 2


def test_a_download_that_was_killed_leaves_an_entry_to_remove(
    host: ModelHost, folder: Folder, model: Path
) -> None:
    with paused_download(host, model) as (download, _):
        download.kill()
        entry = only_entry(folder)

    assert not entry.complete
    assert folder.remove(entry)


AGENT = """
import os, signal, sys
from pathlib import Path
from slotkeeper.node_cache.folder import Folder

path, number, sent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
unlink, calls = os.unlink, []

def counting(*arguments, **options):
    # Before the unlink with this number.
    if len(calls) == number:
        os.kill(os.getpid(), sent)
    calls.append(arguments)
    unlink(*arguments, **options)

os.unlink = counting
with Folder(path) as folder:
    [entry] = folder.scan().entries
    removed = folder.remove(entry)
print(len(calls), removed)
"""
"""An agent that gets a signal in the middle of a removal."""

UNLINKS = 3
"""Of a model: its record, itself, and its lock."""


def agent(root: Path, number: int, sent: signal.Signals) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", AGENT, root, str(number), str(int(sent))],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", range(UNLINKS + 1))
def test_an_agent_that_is_killed_in_a_removal_leaves_what_the_next_pod_completes(
    host: ModelHost, folder: Folder, model: Path, number: int
) -> None:
    assert Download(host, model).succeeds()
    with agent(model.parents[1], number, signal.SIGKILL) as killed:
        output, _ = killed.communicate(timeout=30)
    assert (killed.returncode, output) == (
        (-signal.SIGKILL, "") if number < UNLINKS else (0, f"{UNLINKS} True\n")
    )
    left = folder.scan().entries
    assert not number or not any(entry.complete for entry in left)

    assert Download(host, model).succeeds()

    assert is_whole(model)
    assert only_entry(folder).complete
    assert len(host.requests) == (2 if number else 1)
    assert folder.remove(only_entry(folder))


@pytest.mark.parametrize("number", range(UNLINKS))
def test_a_pod_that_starts_in_a_removal_waits_and_downloads_again(
    host: ModelHost, folder: Folder, model: Path, number: int
) -> None:
    assert Download(host, model).succeeds()
    with agent(model.parents[1], number, signal.SIGSTOP) as stopped:
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        waiting = Download(host, model)
        waiting.wait_for("waiting for another process")
        stopped.send_signal(signal.SIGCONT)
        assert stopped.communicate(timeout=30)[0] == f"{UNLINKS} True\n"

    assert waiting.succeeds()
    assert is_whole(model)
    # Its lock is the one that the next processes see.
    assert only_entry(folder).marks
    assert len(host.requests) == 2


WORKER = """
import sys
from pathlib import Path
from random import Random
from slotkeeper.download.download import Environment, download
from slotkeeper.download.files import File
from slotkeeper.download.node_cache import mark
from slotkeeper.download.transfer import new_client

url, folder, pods, name, rounds, models = *sys.argv[1:5], int(sys.argv[5]), sys.argv[6:]
random = Random(name)
with new_client() as client:
    environment = Environment(
        client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0, mark_used=mark
    )
    for number in range(rounds):
        model = random.choice(models)
        bound = Path(pods) / f"{name}-{number}"
        # The pod is bound to the node before its first container starts.
        bound.write_text(model)
        path = Path(folder) / f"{model}.gguf"
        download(File(url, path), environment)
        for _ in range(random.randrange(20)):
            assert path.read_bytes()[:4] == b"GGUF"
        bound.unlink()
"""
"""Pods one after the other, each with one of some models."""

WORKERS, ROUNDS = 4, 25


def test_random_pods_beside_an_agent_that_removes_whatever_it_may(
    host: ModelHost, folder: Folder, model: Path, tmp_path: Path
) -> None:
    pods = tmp_path / "pods"
    pods.mkdir()
    models = [name_of(str(number)) for number in range(3)]
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, host.url, model.parent, pods, str(number)),
                *(str(ROUNDS), *models),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WORKERS)
    ]
    removed = kept = 0
    while any(worker.poll() is None for worker in workers):
        found, lost = sweep(folder, lambda: in_use(pods))
        removed, kept = removed + found, kept + lost

    for worker in workers:
        assert worker.communicate()[1] == ""
        assert worker.returncode == 0
    # The test is about removals, and about those that a pod prevents at the last moment.
    assert removed > ROUNDS // 2
    assert len(host.requests) > len(models)


def sweep(folder: Folder, list_pods: Callable[[], set[str]]) -> tuple[int, int]:
    """Remove all that no pod uses, as one sweep of the agent; return the number of removed and of
    kept models."""
    entries = [entry for entry in folder.scan().entries if entry.namespace == NAMESPACE]
    used = list_pods()
    found = plan(entries, lambda each: each.name in used, Limits(1, 0), Disk(1, 1), time.time_ns())
    results = [folder.remove(entry) for entry in found.remove]
    return sum(results), len(results) - sum(results)


def in_use(pods: Path) -> set[str]:
    used = set()
    for name in os.listdir(pods):  # noqa: PTH208 (names are enough)
        try:
            used.add((pods / name).read_text())
        except FileNotFoundError:
            continue
    return used
