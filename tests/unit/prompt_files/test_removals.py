import errno
import os
import threading
import time
from pathlib import Path

import pytest

from prompt_folders import PromptFolder
from prompt_states import COMPATIBLE, IDENTITY, SECOND_NS, name, state, write_part
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files.policy import EXPIRED_NS, IDLE_NS, PART_NS, Reason
from slotkeeper.prompt_files.record import Content

OTHER = "f" * 16
RECORD_BYTES = 150
"""Somewhat more than those of a record in these tests."""


def set_age(path: Path, now: int, age_ns: int) -> None:
    os.utime(path, ns=(now - age_ns, now - age_ns))


def test_the_least_recently_used_files_are_removed_for_a_new_one(harness: PromptFolder) -> None:
    harness.limits = Limits(4 * (1000 + RECORD_BYTES), 0)
    harness.prepare()
    for number in range(4):
        harness.save(number)
    harness.use(0)

    room = harness.folder().make_room(1500, harness.now)

    assert room.lacking is None
    assert room.removals.names == [name(1), name(2)]
    assert room.removals.counts == {Reason.SIZE_LIMIT: 2}
    assert harness.listed() == [0, 3]
    assert harness.folder().make_room(1500, harness.now).removals.names == []


def test_prompts_that_are_sent_once_push_out_each_other(harness: PromptFolder) -> None:
    harness.limits = Limits(4 * (1000 + RECORD_BYTES), 0)
    harness.prepare()
    for number in range(2):
        harness.save(number)
    for number in range(2, 9):
        harness.folder().make_room(1000 + RECORD_BYTES, harness.now)
        harness.save(number, once=True)
    assert harness.listed() == [1, 0, 8, 7]

    harness.use(7)
    assert harness.listed() == [7, 1, 0, 8]


def test_no_file_is_removed_for_one_that_cannot_fit(harness: PromptFolder) -> None:
    harness.limits = Limits(5000, 0)
    harness.prepare()
    harness.save(1)

    room = harness.folder().make_room(5001, harness.now)

    assert (room.lacking, room.removals.names) == (Reason.SIZE_LIMIT, [])
    assert harness.listed() == [1]


def test_no_file_is_removed_while_the_disk_is_full_of_other_things(
    harness: PromptFolder,
) -> None:
    harness.prepare()
    harness.save(1)
    free = harness.folder().list().free_bytes

    room = harness.folder().make_room(min(free + 10**7, 2**50), harness.now)

    assert room.lacking in {Reason.SIZE_LIMIT, Reason.DISK_FULL}
    assert harness.listed() == [1]


def test_the_limit_is_kept_after_a_commit_without_a_request_for_room(
    harness: PromptFolder,
) -> None:
    harness.limits = Limits(2 * (1000 + RECORD_BYTES), 0)
    harness.prepare()
    harness.save(1)
    harness.save(2)

    removals = harness.save(3)

    assert removals.names == [name(1)]
    assert harness.listed() == [3, 2]


def test_files_of_an_unused_identity_are_removed_first(harness: PromptFolder) -> None:
    harness.identity = OTHER
    harness.prepare()
    harness.save(1)
    harness.save(2)
    set_age(harness.path / ".used", harness.now, IDLE_NS + 10 * SECOND_NS)
    harness.identity = IDENTITY
    harness.limits = Limits(3 * (1000 + RECORD_BYTES), 0)
    harness.now -= 5 * SECOND_NS
    harness.prepare()
    harness.save(3)

    room = harness.folder().make_room(1000, harness.now)

    assert room.removals.counts == {Reason.SIZE_LIMIT: 1}
    assert room.removals.names == []
    assert harness.listed() == [3]
    assert {each.name for each in (harness.root / OTHER).glob("?" * 32)} == {name(2)}


def test_an_identity_is_removed_after_a_day_without_use(harness: PromptFolder) -> None:
    harness.identity = OTHER
    harness.prepare()
    harness.save(1)
    write_part(harness.path, f"{name(2)}.part", b"x", harness.now)
    harness.identity = IDENTITY
    harness.prepare()
    harness.save(1)
    unused = harness.root / OTHER
    set_age(unused / ".used", harness.now, EXPIRED_NS)

    assert not harness.folder().sweep(harness.now).counts
    assert unused.exists()
    harness.folder().sweep(harness.now + SECOND_NS)

    assert not unused.exists()
    assert harness.listed() == [1]


def test_an_identity_whose_agent_runs_is_never_removed(harness: PromptFolder) -> None:
    harness.prepare()
    harness.save(1)
    other = PromptFolder(harness.root, identity=OTHER, storages=harness.storages)
    other.prepare()
    for _ in range(100):
        harness.now += EXPIRED_NS // 10
        harness.folder().sweep(harness.now)
        other.folder().sweep(harness.now)

    assert harness.listed() == [1]
    assert other.path.exists()


def test_files_of_others_are_neither_counted_nor_removed(harness: PromptFolder) -> None:
    harness.identity = OTHER
    harness.prepare()
    (harness.path / "notes.txt").write_text("mine")
    (harness.root / "lost+found").mkdir()
    (harness.root / ("1" * 16)).write_text("no folder")
    harness.identity = IDENTITY
    harness.now += 2 * EXPIRED_NS
    harness.prepare()

    harness.folder().sweep(harness.now)

    assert (harness.root / OTHER / "notes.txt").read_text() == "mine"
    assert harness.folder().list().used_bytes == 0


def test_what_is_left_over_is_removed(harness: PromptFolder) -> None:
    harness.prepare()
    for number in range(5):
        harness.save(number)
    path = harness.path
    (path / name(0)).unlink()
    (path / f"{name(1)}.json").unlink()
    (path / name(2)).write_bytes(state(10, 999))
    (path / f"{name(3)}.json").write_text("{}")
    (path / f"{name(4)}.json.new").write_text("{")
    (path / name(6)).symlink_to(path / name(4))
    for number, age in ((7, PART_NS), (8, PART_NS + 1)):
        write_part(path, f"{name(number)}.part", b"x", harness.now - age)
    assert harness.listed() == [4]

    removals = harness.folder().sweep(harness.now)

    assert harness.files == {name(4), f"{name(4)}.json", f"{name(7)}.part"}
    assert removals.counts == {Reason.INCOMPLETE: 4, Reason.INVALID: 5}
    assert not removals.failures


def test_a_full_disk_is_cleared_for_the_folder_of_an_identity(
    harness: PromptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.identity = OTHER
    harness.prepare()
    harness.save(1)
    harness.identity = IDENTITY
    harness.now += 2 * EXPIRED_NS
    mkdir = os.mkdir

    def create(*arguments: object, **options: object) -> None:
        if (harness.root / OTHER).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mkdir(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", create)

    harness.prepare()
    assert harness.files == set()


def test_threads_and_agents_change_one_folder_at_a_time(harness: PromptFolder) -> None:
    """Two agents of one ReadWriteMany volume, each with several threads, and more than fits."""
    harness.limits = Limits(8 * (1000 + RECORD_BYTES), 0)
    harness.now = time.time_ns()
    harness.sleep = time.sleep
    agents = [harness.prepare(), harness.folder()]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        agent = agents[number % 2]
        try:
            for step in range(8):
                file = name(number * 100 + step)
                agent.make_room(1000, harness.now)
                write_part(harness.path, f"{file}.part", state())
                stated = Content(1000, 10, (), COMPATIBLE)
                agent.commit(f"{file}.part", file, stated, harness.now + number * 100 + step)
                agent.list()
                if step % 4 == 0:
                    agent.sweep(harness.now)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    kept = harness.listed()
    assert 6 <= len(kept) <= 8
    assert harness.files == {
        f"{name(number)}{suffix}" for number in kept for suffix in ("", ".json")
    }
