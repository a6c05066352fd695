"""A download into the cache of a node: its limits, marks, and requests for room."""

import errno
import fcntl
import json
import os
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

from cached_models import name_of
from download_harness import COMPLETE, RESUMABLE, DownloadHarness
from model_host import GGUF, SHA256, ModelHost, by_name, chunked, content
from ranged_model import RangedModel, large_model
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.body import BLOCK_BYTES
from slotkeeper.download.download import Environment, download, download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main
from slotkeeper.download.node_cache import ROOM_SECONDS, NodeCache, read_limits
from slotkeeper.download.ranges import SEGMENT_BYTES
from slotkeeper.node_cache.folder import Folder
from slotkeeper.node_folder import LIMITS_FILE, Limits, mark_used

DISK = 100_000


class FakeDisk:
    """A disk on which an agent makes room after a number of seconds."""

    def __init__(self, path: Path, free: int, *, freed_after: int | None = None) -> None:
        self.request = path.with_name(f"{path.name}.part.room")
        self.free = free
        self.seconds = 0
        self.requested: set[str] = set()
        self._freed_after = freed_after

    def usage(self, _: Path) -> tuple[int, int, int]:
        return DISK, DISK - self.free, self.free

    def sleep(self, seconds: float) -> None:
        self.seconds += int(seconds)
        self.requested.add(self.request.read_text())
        # Otherwise the agent takes the request for one that a kill has left.
        with self.request.open() as request, pytest.raises(BlockingIOError):
            fcntl.flock(request, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self.seconds == self._freed_after:
            self.free = DISK

    def limits(self, max_bytes: int = DISK, percent: int = 0) -> NodeCache:
        return NodeCache(Limits(max_bytes, percent), self.sleep, self.usage)


@pytest.fixture
def disk(path: Path) -> FakeDisk:
    return FakeDisk(path, DISK)


@pytest.mark.parametrize("reply", [content(), chunked()])
def test_a_file_that_is_larger_than_the_cache_is_rejected(
    host: ModelHost, harness: DownloadHarness, disk: FakeDisk, reply: object
) -> None:
    host.respond_with(reply)  # type: ignore[arg-type]  # parametrized
    harness.limits = disk.limits(len(GGUF) - 1).storage_limits(10**9)

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_TOO_LARGE
    assert error.message.endswith(
        f"more than the {len(GGUF) - 1} bytes of the node's cache (chart value nodeCache.sizeLimit)"
    )
    assert harness.files == set()


def test_the_smaller_limit_of_the_spec_is_named(
    host: ModelHost, harness: DownloadHarness, disk: FakeDisk
) -> None:
    host.respond_with(content())
    harness.limits = disk.limits().storage_limits(100)

    assert harness.download_error(host.url).message.endswith("model.download.maxFileSize")


def test_a_download_waits_for_room_and_withdraws_its_request(
    host: ModelHost, harness: DownloadHarness, path: Path
) -> None:
    host.respond_with(content())
    disk = FakeDisk(path, len(GGUF) - 1, freed_after=7)
    harness.limits = disk.limits().storage_limits(10**9)

    harness.download(host.url, SHA256)

    assert harness.files == COMPLETE
    assert (disk.seconds, disk.requested) == (7, {str(len(GGUF))})


def test_without_room_the_download_fails_before_the_first_byte(
    host: ModelHost, harness: DownloadHarness, path: Path
) -> None:
    host.respond_with(content())
    disk = FakeDisk(path, 5000)
    harness.limits = disk.limits().storage_limits(10**9)

    error = harness.download_error(host.url)

    assert error.reason is Reason.INSUFFICIENT_STORAGE
    assert f"{len(GGUF)} bytes more are needed, 5000 bytes are free" in error.message
    assert disk.seconds == ROOM_SECONDS
    assert not disk.request.exists()


SIZE = 4 * SEGMENT_BYTES
MODEL = large_model(SIZE, kind="model", architecture="llama")
PROJECTOR = large_model(SIZE, kind="mmproj", architecture="clip")


def two_files(host: ModelHost, path: Path) -> list[File]:
    host.respond_with(
        by_name({"model.gguf": RangedModel(MODEL), "mmproj.gguf": RangedModel(PROJECTOR)})
    )
    projector = host.url.replace("model", "mmproj")
    other = path.with_name("mmproj.gguf")
    return [File(host.url, path), File(projector, other, role="model.mmproj")]


def environment(client: httpx.Client, cache: NodeCache) -> Environment:
    return Environment(
        client,
        clock=lambda: 0.0,
        sleep=lambda _: None,
        chance=lambda: 0.0,
        limits=cache.storage_limits(10**9),
        fast=None,
        mark_used=lambda descriptor: mark_used(descriptor, 10**9),
    )


@pytest.mark.parametrize("missing", [0, 1])
def test_files_that_are_larger_than_the_cache_together_are_rejected_by_their_headers(
    host: ModelHost, client: httpx.Client, path: Path, missing: int
) -> None:
    files = two_files(host, path)
    limits = Limits(len(MODEL) + len(PROJECTOR) - missing, 0)
    cache = NodeCache(limits, lambda _: None, lambda _: (10**9, 0, 10**9))
    if not missing:
        assert len(download_all(files, environment(client, cache))) == 2
        return

    with pytest.raises(DownloadError) as caught:
        download_all(files, environment(client, cache))

    assert caught.value.reason is Reason.INSUFFICIENT_STORAGE
    assert caught.value.message == (
        f"all files together have {limits.max_bytes + 1} bytes, more than the {limits.max_bytes} "
        "bytes of the node's cache (chart value nodeCache.sizeLimit)"
    )
    assert sum(file.stat().st_size for file in path.parent.glob("*.part")) <= 4 * BLOCK_BYTES


def test_a_single_file_is_requested_once(
    host: ModelHost, client: httpx.Client, path: Path, disk: FakeDisk
) -> None:
    host.respond_with(content())

    download_all([File(host.url, path)], environment(client, disk.limits()))

    assert len(host.requests) == 1


def test_room_for_all_files_is_requested_under_a_lock(
    host: ModelHost, client: httpx.Client, path: Path
) -> None:
    path = path.with_name(f"{name_of('model')}.gguf")
    files = two_files(host, path)
    free = [len(MODEL) + len(PROJECTOR) - 4 * BLOCK_BYTES - 1]

    def agent(_: float) -> None:
        """Makes room only for a download that runs, as the real one."""
        with Folder(path.parent.parent) as folder:
            [entry] = folder.scan().entries
            free[0] += entry.requested

    def disk(_: Path) -> tuple[int, int, int]:
        return 10**9, 10**9 - free[0], free[0]

    cache = NodeCache(Limits(10**9, 0), agent, disk)

    download_all(files, environment(client, cache))

    assert free[0] > len(MODEL) + len(PROJECTOR)


class SharedDisk(FakeDisk):
    """A disk whose free bytes other downloads take after it has been read."""

    @override
    def usage(self, path: Path) -> tuple[int, int, int]:
        found = super().usage(path)
        if not self.seconds:
            self.free = DISK // 10
        return found


@pytest.mark.parametrize("freed_after", [3, None])
def test_a_part_of_the_disk_is_left_free_by_downloads_at_the_same_time(
    host: ModelHost, harness: DownloadHarness, path: Path, freed_after: int | None
) -> None:
    disk = SharedDisk(path, DISK, freed_after=freed_after)
    host.respond_with(content())
    harness.limits = disk.limits(percent=10).storage_limits(10**9)

    if freed_after:
        harness.download(host.url)
    else:
        assert harness.download_error(host.url).reason is Reason.INSUFFICIENT_STORAGE

    assert harness.files == (COMPLETE if freed_after else RESUMABLE)
    assert disk.requested == {str(len(GGUF))}


def test_a_part_of_the_disk_is_left_free(
    host: ModelHost, harness: DownloadHarness, path: Path
) -> None:
    host.respond_with(content())
    disk = FakeDisk(path, len(GGUF) + DISK * 15 // 100 - 1)
    harness.limits = disk.limits(percent=15).storage_limits(10**9)

    assert harness.download_error(host.url).reason is Reason.INSUFFICIENT_STORAGE
    disk.free += 1
    harness.download(host.url)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"max_bytes": "1"}', "x" * 10_000])
def test_a_folder_without_limits_is_not_of_a_node_with_an_agent(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / LIMITS_FILE).write_text(content)

    with pytest.raises(DownloadError) as caught:
        read_limits(tmp_path)

    assert caught.value.reason is Reason.STORAGE_ERROR
    assert "DaemonSet" in caught.value.message


def test_the_limits_are_those_of_the_agent(tmp_path: Path) -> None:
    (tmp_path / LIMITS_FILE).write_text(Limits(7, 20).to_json())

    assert read_limits(tmp_path) == Limits(7, 20)


def test_a_model_is_marked_as_used_by_a_download_and_whenever_it_is_found(
    host: ModelHost, client: httpx.Client, path: Path
) -> None:
    host.respond_with(content())
    lock = path.with_name("model.gguf.lock")
    times = iter([1000, 2000, 1500])

    def run() -> int:
        environment = Environment(
            client,
            clock=lambda: 0.0,
            sleep=lambda _: None,
            chance=lambda: 0.0,
            mark_used=lambda descriptor: mark_used(descriptor, next(times) * 10**9),
        )
        download(File(host.url, path), environment)
        return lock.stat().st_mtime_ns

    first, second, third = run(), run(), run()

    assert first < second < third
    assert len(host.requests) == 1


def test_a_model_that_cannot_be_marked_is_not_used(
    host: ModelHost, client: httpx.Client, path: Path
) -> None:
    host.respond_with(content())

    def fail(_: int) -> None:
        raise PermissionError(errno.EPERM, "not the owner")

    environment = Environment(
        client, clock=lambda: 0.0, sleep=lambda _: None, chance=lambda: 0.0, mark_used=fail
    )

    with pytest.raises(DownloadError) as caught:
        download(File(host.url, path), environment)

    assert caught.value.reason is Reason.STORAGE_ERROR


def test_the_command_marks_the_model_in_a_folder_of_an_agent(
    host: ModelHost, path: Path, tmp_path: Path
) -> None:
    host.respond_with(content())
    path.parent.mkdir()
    log = tmp_path / "termination-log"
    log.touch()
    arguments = ["--model", host.url, "--to", str(path), "--termination-log", str(log)]

    assert main([*arguments, "--node-cache", str(path.parent)]) == 1
    assert json.loads(log.read_text())["reason"] == "StorageError"

    (path.parent / LIMITS_FILE).write_text(Limits(10**9, 0).to_json())
    lock = path.with_name("model.gguf.lock")
    lock.touch()
    os.utime(lock, ns=(1, 1))
    assert main([*arguments, "--node-cache", str(path.parent)]) == 0
    assert lock.stat().st_mtime_ns > 1
