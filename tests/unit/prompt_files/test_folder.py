import errno
import fcntl
import os
from pathlib import Path

import pytest

from prompt_folders import PromptFolder
from prompt_states import SECOND_NS, name, state, write_part
from slotkeeper.prompt_files import storage
from slotkeeper.prompt_files.folder import InvalidFileError
from slotkeeper.prompt_files.record import Content


def test_the_folder_of_the_identity_is_created_for_its_owner_only(harness: PromptFolder) -> None:
    harness.prepare()
    harness.prepare()

    assert harness.path.stat().st_mode & 0o777 == 0o700
    assert harness.files == set()


def test_a_committed_file_is_listed_with_what_was_stated(harness: PromptFolder) -> None:
    folder = harness.prepare()
    content = state(12, 5000)
    write_part(harness.path, f"{name(9)}.part", content)
    stated = Content(5000, 12, (7, -(2**63), 2**64 - 1), "ab")

    assert folder.commit(f"{name(9)}.part", name(1), stated, harness.now).names == []

    listing = folder.list()
    [file] = listing.files
    assert (file.name, file.record.content, file.used_ns) == (name(1), stated, harness.now)
    assert file.record.saved_at == harness.now // SECOND_NS
    assert (harness.path / name(1)).read_bytes() == content
    assert harness.files == {name(1), f"{name(1)}.json"}
    assert 5000 < listing.used_bytes < 5300
    assert listing.free_bytes > 0


def test_a_later_file_of_the_same_name_replaces_it(harness: PromptFolder) -> None:
    harness.prepare()
    harness.save(1, state(10, 500))
    harness.save(1, state(11, 700), tokens=11)

    [file] = harness.folder().list().files
    assert (file.record.content.bytes, file.record.content.tokens) == (700, 11)
    assert harness.use(1) == 700


@pytest.mark.parametrize(
    ("content", "changes", "problem"),
    [
        (state(), {"bytes": 999}, "1000 bytes instead of 999"),
        (state(), {"tokens": 11}, "10 tokens instead of 11"),
        (bytes(1000), {}, "no state of a slot: magic 00000000, version 0"),
        (state()[:20], {"bytes": 20}, "only 20 bytes"),
        (state(), {"bytes": 10**9 + 1}, "1000000001 bytes, more than the limit of all"),
    ],
)
def test_a_file_that_is_not_what_was_announced_is_deleted(
    harness: PromptFolder, content: bytes, changes: dict[str, int], problem: str
) -> None:
    folder = harness.prepare()
    harness.save(1)
    write_part(harness.path, f"{name(1)}.part", content)
    stated = Content(**({"bytes": 1000, "tokens": 10} | changes), prefixes=(), compatible="a")

    with pytest.raises(InvalidFileError, match=problem):
        folder.commit(f"{name(1)}.part", name(1), stated, harness.now)

    assert harness.files == {name(1), f"{name(1)}.json"}
    assert harness.listed() == [1]


def test_a_link_a_pipe_or_a_folder_is_no_file(harness: PromptFolder, tmp_path: Path) -> None:
    harness.prepare()
    secret = tmp_path / "secret"
    secret.write_bytes(state())
    part = harness.path / f"{name(1)}.part"

    part.symlink_to(secret)
    with pytest.raises(InvalidFileError):
        harness.commit(1, state())
    assert harness.files == set()

    os.mkfifo(part)
    with pytest.raises(InvalidFileError):
        harness.commit(1, state())
    assert harness.files == set()

    part.mkdir()
    with pytest.raises(InvalidFileError):
        harness.commit(1, bytes(part.stat().st_size))
    with pytest.raises(InvalidFileError):
        harness.commit(2, state())
    assert secret.read_bytes() == state()


def test_each_file_is_on_the_disk_before_it_has_its_name(
    harness: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a node that loses its power could have the name and size, and no content."""
    harness.prepare()
    write_part(harness.path, f"{name(1)}.part", state())
    flushed: set[int] = set()
    renamed: list[str] = []
    fsync, rename = os.fsync, os.rename

    def flush(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def name_it(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        assert (harness.path / old).stat().st_ino in flushed
        # The name of the file is on the disk before that of its record.
        assert not renamed or harness.path.stat().st_ino in flushed
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        renamed.append(new)
        flushed.clear()

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", name_it)
    harness.commit(1, state())

    assert renamed == [name(1), f"{name(1)}.json"]
    assert harness.path.stat().st_ino in flushed


def test_the_last_used_file_is_the_first_of_the_list(harness: PromptFolder) -> None:
    harness.prepare()
    for number in range(4):
        harness.save(number)

    assert harness.use(1) == 1000
    assert harness.listed() == [1, 3, 2, 0]


def test_a_sweep_creates_the_folder_again(harness: PromptFolder) -> None:
    folder = harness.prepare()
    (harness.path / ".used").unlink()
    harness.path.rmdir()

    folder.sweep(harness.now)

    harness.save(1)
    assert harness.listed() == [1]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="gone"),
        pytest.param(state(10, 999), id="shorter"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_a_bad_file_cannot_be_used_and_is_removed(
    harness: PromptFolder, content: bytes | None
) -> None:
    harness.prepare()
    harness.save(1)
    file = harness.path / name(1)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    with pytest.raises(FileNotFoundError):
        harness.use(1)
    assert harness.files == set()


def test_a_bad_record_makes_its_file_unusable(harness: PromptFolder) -> None:
    harness.prepare()
    harness.save(1)
    (harness.path / f"{name(1)}.json").write_text("x" * 5000)

    with pytest.raises(FileNotFoundError):
        harness.use(1)
    assert harness.files == set()
    with pytest.raises(FileNotFoundError):
        harness.use(1)


def test_the_reading_ends_when_it_is_given_up(harness: PromptFolder) -> None:
    harness.prepare()
    harness.save(1, state(10, 5000))
    asked: list[int] = []

    def is_given_up() -> bool:
        asked.append(1)
        return len(asked) > 3

    assert harness.use(1, is_given_up) == 5000
    assert len(asked) == 4
    assert harness.use(1) == 5000


def test_a_file_that_shrinks_while_it_is_read_is_removed(harness: PromptFolder) -> None:
    harness.prepare()
    harness.save(1, state(10, 5000))

    def shrink() -> bool:
        os.truncate(harness.path / name(1), 300)
        return False

    with pytest.raises(FileNotFoundError, match="shorter"):
        harness.use(1, shrink)
    assert harness.files == set()


def test_a_removed_file_is_gone(harness: PromptFolder) -> None:
    folder = harness.prepare()
    harness.save(1)

    assert folder.remove(name(1))
    assert not folder.remove(name(1))
    assert harness.files == set()


def test_a_file_that_is_not_complete_is_removed_too(harness: PromptFolder) -> None:
    folder = harness.prepare()
    (harness.path / f"{name(1)}.part").write_bytes(b"some")

    assert folder.remove(name(1))
    assert harness.files == set()


def test_files_of_another_content_of_the_model_are_not_for_this_one(
    harness: PromptFolder,
) -> None:
    harness.model = "a"
    harness.prepare()
    harness.save(1)
    harness.model = "b"
    harness.save(2)

    assert harness.listed() == [2]
    with pytest.raises(FileNotFoundError):
        harness.use(1)
    harness.folder().sweep(harness.now)
    harness.model = "a"
    assert harness.listed() == [1]


def test_a_full_disk_leaves_nothing_of_a_new_file(
    harness: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.prepare()
    harness.save(1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("write", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(OSError, match="No space left"):
                harness.save(2)
        assert harness.files == {name(1), f"{name(1)}.json"}
    assert harness.listed() == [1]


def test_a_folder_that_cannot_be_changed_can_be_read(
    harness: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.prepare()
    harness.save(1)
    write_part(harness.path, f"{name(2)}.part", state())

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", read_only)
    monkeypatch.setattr(storage, "_WRITE", os.O_WRONLY | os.O_EXCL | os.O_CREAT)

    harness.prepare()
    assert harness.listed() == [1]
    assert harness.use(1) == 1000
    with pytest.raises(OSError, match="File exists"):
        harness.commit(2, state())
    with pytest.raises(OSError, match="File exists"):
        harness.folder().sweep(harness.now)


def test_changes_wait_for_those_of_other_agents(harness: PromptFolder) -> None:
    harness.prepare()
    write_part(harness.path, f"{name(1)}.part", state())
    lock = os.open(harness.root / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            os.close(lock)

    harness.sleep = sleep
    harness.commit(1, state())

    assert len(waited) == 3
    assert harness.listed() == [1]


def test_a_lock_that_is_never_released_is_an_error(harness: PromptFolder) -> None:
    waited: list[float] = []
    harness.sleep = waited.append
    folder = harness.prepare()
    harness.save(1)
    lock = os.open(harness.root / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    with pytest.raises(TimeoutError):
        folder.remove(name(1))

    assert sum(waited) == pytest.approx(storage.LOCK_SECONDS)
    assert harness.listed() == [1]
    assert harness.use(1) == 1000
    os.close(lock)
    assert folder.remove(name(1))
