"""What is on the volume, also after a crash at any point."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.batches.records import Batch, StoredFile, is_done, with_done
from slotkeeper.batches.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def batch(number: int = 1, **fields: object) -> Batch:
    created = Batch(
        id=f"batch_{number}",
        owner="ann",
        endpoint="/v1/completions",
        input_file_id="file-in",
        completion_window="24h",
        created_at=100 + number,
        expires_at=1000,
        output_file_id=f"file-out{number}",
        error_file_id=f"file-err{number}",
        status="in_progress",
        total=10,
    )
    for name, value in fields.items():
        setattr(created, name, value)
    return created


def add_file(store: Store, file_id: str, owner: str = "ann", **fields: int) -> None:
    content = store.create_content(file_id)
    content.write(b"{}\n")
    file = StoredFile(file_id, owner, "in.jsonl", "batch", 3, 100, fields.get("expires_at"))
    store.complete_content(content, file)


def restarted(store: Store) -> Store:
    store.close()
    return Store(store.folder)


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_done_lines_are_bits(first: set[int], second: set[int]) -> None:
    done = with_done(with_done(b"", [*first], 100), [*second], 100)

    assert {line for line in range(200) if is_done(done, line)} == first | second


def test_a_batch_is_read_as_it_was_written(store: Store) -> None:
    written = batch(
        metadata={"a": "b"},
        times={"in_progress_at": 5},
        errors=[{"code": "x", "line": 1}],
        output_seconds=7200,
        done=b"\x01",
    )
    store.add_batch(written)

    assert store.batch("ann", "batch_1") == written
    assert store.batch("bob", "batch_1") is None
    again = restarted(store)
    assert again.unfinished() == [written]
    again.close()


def test_what_does_not_count_is_cut_off_at_the_next_start(store: Store) -> None:
    store.add_batch(batch())
    store.add_results("batch_1", [0, 1], b"first\n", b"second\n", 1)
    # It was killed after the write of a content, and before the commit.
    for file_id in ("file-out1", "file-err1"):
        with store.path(file_id).open("ab") as content:
            content.write(b'{"torn')
    store.path("file-unknown").write_bytes(b"x")
    store.create_content("file-upload").close()

    again = restarted(store)
    changed = again.add_results("batch_1", [2], b"third\n", b"", 0)

    assert again.path("file-out1").read_bytes() == b"first\nthird\n"
    assert again.path("file-err1").read_bytes() == b"second\n"
    assert sorted(each.name for each in (again.folder / "contents").iterdir()) == [
        "file-err1",
        "file-out1",
    ]
    assert (changed.completed, changed.failed) == (2, 1)
    assert [line for line in range(10) if is_done(changed.done, line)] == [0, 1, 2]
    again.close()


def test_a_failed_commit_changes_nothing(store: Store) -> None:
    store.add_batch(batch())
    store.add_results("batch_1", [0], b"first\n", b"", 0)
    store._database.execute(
        "CREATE TEMP TRIGGER fail BEFORE UPDATE ON batches "
        "BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    )
    with pytest.raises(sqlite3.Error):
        store.add_results("batch_1", [1], b"lost\n", b"", 0)
    store._database.execute("DROP TRIGGER fail")

    store.add_results("batch_1", [1], b"second\n", b"", 0)
    assert store.path("file-out1").read_bytes() == b"first\nsecond\n"


def test_the_files_of_an_ended_batch_are_listed(store: Store) -> None:
    store.add_batch(batch())
    store.add_results("batch_1", [0], b"first\n", b"", 0)
    assert store.files("ann", after=None, limit=9, ascending=True, purpose=None) == []
    assert store.used_bytes() == 6

    ended = store.finish("batch_1", lambda each: replace(each, status="completed"), 200, 900)

    [file] = store.files("ann", after=None, limit=9, ascending=True, purpose=None)
    assert file == StoredFile(
        "file-out1", "ann", "batch_1_output.jsonl", "batch_output", 6, 200, 900
    )
    assert ended.status == "completed"
    assert store.unfinished() == []
    assert store.used_bytes() == 6


def test_lists_are_divided_into_pages(store: Store) -> None:
    for number in range(5):
        add_file(store, f"file-{number}")
        store.add_batch(batch(number))

    def page(after: str | None, *, ascending: bool) -> list[str]:
        found = store.files("ann", after=after, limit=2, ascending=ascending, purpose="batch")
        return [each.id for each in found]

    assert page(None, ascending=True) == ["file-0", "file-1"]
    assert page("file-1", ascending=True) == ["file-2", "file-3"]
    assert page("file-1", ascending=False) == ["file-0"]
    assert page("file-unknown", ascending=True) == []
    assert [each.id for each in store.batches("ann", after="batch_3", limit=2)] == [
        "batch_2",
        "batch_1",
    ]
    assert store.files("bob", after="file-1", limit=2, ascending=True, purpose=None) == []


def test_what_is_old_is_deleted_but_not_while_a_batch_reads_it(store: Store) -> None:
    add_file(store, "file-in", expires_at=500)
    add_file(store, "file-other", expires_at=500)
    add_file(store, "file-kept", expires_at=501)
    store.add_batch(batch(1))
    store.add_batch(batch(2, status="completed", input_file_id="file-other"))

    assert store.expire(500, ended_before=1000) == 1

    assert store.file("ann", "file-in")
    assert store.file("ann", "file-kept")
    assert not store.file("ann", "file-other")
    assert not store.path("file-other").exists()
    assert [each.id for each in store.batches("ann", after=None, limit=9)] == ["batch_1"]


def test_a_second_store_of_the_same_folder_is_rejected(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Store(store.folder)
