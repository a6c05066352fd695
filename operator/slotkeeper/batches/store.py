"""Files and batches on a volume: a SQLite database, and one file beside it for each content.

The order of writes makes a loss of power harmless. A content is complete on the disk before the
database refers to it. A result counts from the commit that sets its line's bit and the length of
the file with results: what such a file contains beyond this length is cut off at the next start.

SQLite uses a rollback journal: its write-ahead log needs shared memory, which network file systems
do not have. Its exclusive lock also keeps a second process out.
"""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from slotkeeper.batches.records import FINISHED, Batch, StoredFile, with_done

RESERVE_BYTES = 16 * 1024**2
"""Kept free for the database: a file can then be deleted from a full disk."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER);
CREATE INDEX IF NOT EXISTS files_of_owner ON files (owner, seq);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    status TEXT NOT NULL, created_at INTEGER NOT NULL, input_file_id TEXT NOT NULL,
    record TEXT NOT NULL, done BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batches_of_owner ON batches (owner, seq);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
"""
_FILE_COLUMNS = "id, owner, filename, purpose, bytes, created_at, expires_at"
_IN_RECORD = (
    "endpoint",
    "completion_window",
    "expires_at",
    "output_file_id",
    "error_file_id",
    "metadata",
    "output_seconds",
    "times",
    "errors",
    "total",
    "completed",
    "failed",
    "output_bytes",
    "error_bytes",
)
_ENDED = ", ".join(f"'{status}'" for status in FINISHED)


class StorageFull(OSError):  # noqa: N818 (the storage is full; nothing failed here)
    """The volume, or the part of it that may be used, is full. The message states which."""


class Store:
    """The files and batches in a folder. Not thread-safe: use it in one thread.

    `max_bytes`: of all contents together; None: as much as the volume has. `free` returns the free
    bytes of the volume of a path.

    Raises OSError or sqlite3.Error if the folder cannot be used, for example because another
    process uses it.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int | None = None,
        free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._free = free
        self._reserved = 0
        self._contents = folder / "contents"
        self._contents.mkdir(exist_ok=True)
        self._database = sqlite3.connect(
            folder / "state.db", timeout=1, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = TRUNCATE",
            "synchronous = FULL",
            "trusted_schema = OFF",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        # Also takes the lock, which stays until the end of the process.
        self._database.executescript(f"BEGIN EXCLUSIVE;{_SCHEMA}COMMIT;")
        self._recover()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # Space.

    def used_bytes(self) -> int:
        """Return the bytes of all contents."""
        (listed,) = self._one("SELECT coalesce(sum(bytes), 0) FROM files")
        unlisted = sum(each.output_bytes + each.error_bytes for each in self.unfinished())
        return int(listed) + unlisted

    def reserve(self, size: int) -> None:
        """Keep room for an upload of `size` bytes, up to `release`. Raises StorageFull."""
        self.check_space(size)
        self._reserved += size

    def release(self, size: int) -> None:
        """Free what was reserved: the upload has ended."""
        self._reserved -= size

    def check_space(self, size: int) -> None:
        """Raise StorageFull if there is no room for `size` more bytes."""
        if (
            self.max_bytes is not None
            and self.used_bytes() + self._reserved + size > self.max_bytes
        ):
            raise StorageFull(
                f"files and results would occupy more than {self.max_bytes} bytes: delete files"
            )
        self.check_volume(size)

    def check_volume(self, size: int) -> None:
        """Raise StorageFull if the volume has no room for `size` more bytes."""
        if self._free(self.folder) < size + RESERVE_BYTES:
            raise StorageFull("the volume is full: delete files")

    # Contents.

    def path(self, file_id: str) -> Path:
        """Return the path of a file's content. An id is never a client's."""
        return self._contents / file_id

    def create_content(self, file_id: str) -> BinaryIO:
        """Open a content to be written. It exists from `complete_content` on."""
        return (self._contents / f"{file_id}.part").open("xb")

    def discard_content(self, file_id: str) -> None:
        """Delete a content that was not completed."""
        (self._contents / f"{file_id}.part").unlink(missing_ok=True)

    def complete_content(self, content: BinaryIO, file: StoredFile) -> None:
        """Close a content whose bytes are all written, and list its file."""
        with content:
            content.flush()
            os.fsync(content.fileno())
        (self._contents / f"{file.id}.part").rename(self.path(file.id))
        self._sync_folder()
        self._insert_file(file)

    # Files.

    def file(self, owner: str, file_id: str) -> StoredFile | None:
        """Return a file of this owner."""
        row = self._one(
            f"SELECT {_FILE_COLUMNS} FROM files WHERE owner = ? AND id = ?",  # noqa: S608
            owner,
            file_id,
        )
        return StoredFile(*row) if row else None

    def files(
        self, owner: str, *, after: str | None, limit: int, ascending: bool, purpose: str | None
    ) -> list[StoredFile]:
        """Return files of this owner, after the one of the id `after` in this order."""
        sql, arguments = _page("files", _FILE_COLUMNS, owner, after, ascending=ascending)
        if purpose is not None:
            sql += " AND purpose = ?"
            arguments.append(purpose)
        sql += f" ORDER BY seq {'ASC' if ascending else 'DESC'} LIMIT ?"
        return [StoredFile(*row) for row in self._all(sql, *arguments, limit)]

    def count_files(self, owner: str) -> int:
        """Return the number of files of this owner."""
        return int(self._one("SELECT count(*) FROM files WHERE owner = ?", owner)[0])

    def is_in_use(self, file_id: str) -> bool:
        """Whether a batch that has not ended reads this file."""
        sql = f"SELECT 1 FROM batches WHERE input_file_id = ? AND status NOT IN ({_ENDED})"  # noqa: S608
        return self._one(sql, file_id) is not None

    def delete_file(self, file_id: str) -> None:
        """Delete a file and its content."""
        with self._transaction():
            self._database.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    # Batches.

    def add_batch(self, batch: Batch) -> None:
        """Add a batch."""
        with self._transaction():
            self._database.execute(
                "INSERT INTO batches (id, owner, status, created_at, input_file_id, record, done) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    batch.id,
                    batch.owner,
                    batch.status,
                    batch.created_at,
                    batch.input_file_id,
                    _record(batch),
                    batch.done,
                ),
            )

    def change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        """Replace a batch by what `change` makes of it; return that. Raises KeyError."""
        with self._transaction():
            changed = change(self._get(batch_id))
            self._update(changed)
        return changed

    def batch(self, owner: str, batch_id: str) -> Batch | None:
        """Return a batch of this owner."""
        row = self._one(f"{_BATCH} WHERE owner = ? AND id = ?", owner, batch_id)
        return _batch(row) if row else None

    def batches(self, owner: str, *, after: str | None, limit: int) -> list[Batch]:
        """Return batches of this owner, the newest first, after the one of the id `after`."""
        sql, arguments = _page("batches", _BATCH_COLUMNS, owner, after, ascending=False)
        rows = self._all(f"{sql} ORDER BY seq DESC LIMIT ?", *arguments, limit)
        return [_batch(row) for row in rows]

    def unfinished(self) -> list[Batch]:
        """Return the batches that have not ended, the oldest first."""
        rows = self._all(f"{_BATCH} WHERE status NOT IN ({_ENDED}) ORDER BY seq")
        return [_batch(row) for row in rows]

    def count_batches(self) -> dict[str, int]:
        """Return the number of batches by status."""
        return dict(self._all("SELECT status, count(*) FROM batches GROUP BY status"))

    def count_batches_of(self, owner: str) -> tuple[int, int]:
        """Return the number of this owner's batches, and how many of them have not ended."""
        sql = (
            f"SELECT count(*), coalesce(sum(status NOT IN ({_ENDED})), 0) "  # noqa: S608
            "FROM batches WHERE owner = ?"
        )
        total, unfinished = self._one(sql, owner)
        return int(total), int(unfinished)

    def add_results(
        self, batch_id: str, lines: Sequence[int], output: bytes, errors: bytes, failed: int
    ) -> Batch:
        """Append the results of lines; return the batch with them.

        `failed`: the number of lines whose results are errors. After an error nothing has changed.
        """
        self.check_space(len(output) + len(errors))
        batch = self._get(batch_id)
        self._append(batch.output_file_id, batch.output_bytes, output)
        self._append(batch.error_file_id, batch.error_bytes, errors)
        changed = replace(
            batch,
            done=with_done(batch.done, list(lines), batch.total),
            completed=batch.completed + len(lines) - failed,
            failed=batch.failed + failed,
            output_bytes=batch.output_bytes + len(output),
            error_bytes=batch.error_bytes + len(errors),
        )
        with self._transaction():
            self._update(changed)
        return changed

    def finish(
        self, batch_id: str, change: Callable[[Batch], Batch], now: int, expires_at: int
    ) -> Batch:
        """Write the end of a batch, and list the files with its results. Raises KeyError."""
        batch = change(self._get(batch_id))
        if batch.output_seconds is not None:
            expires_at = now + batch.output_seconds
        contents = {
            (batch.output_file_id, "output"): batch.output_bytes,
            (batch.error_file_id, "error"): batch.error_bytes,
        }
        with self._transaction():
            self._update(batch)
            for (file_id, suffix), size in contents.items():
                if size:
                    name = f"{batch.id}_{suffix}.jsonl"
                    self._insert(
                        StoredFile(
                            file_id, batch.owner, name, "batch_output", size, now, expires_at
                        )
                    )
        for (file_id, _), size in contents.items():
            if not size:
                self.path(file_id).unlink(missing_ok=True)
        return batch

    def expire(self, now: int, ended_before: int) -> int:
        """Delete files that have expired, and batches created before `ended_before` that ended.

        Returns the number of deleted files.
        """
        rows = self._all("SELECT id FROM files WHERE expires_at <= ?", now)
        expired = [file_id for (file_id,) in rows if not self.is_in_use(file_id)]
        for file_id in expired:
            self.delete_file(file_id)
        with self._transaction():
            self._database.execute(
                f"DELETE FROM batches WHERE created_at < ? AND status IN ({_ENDED})",  # noqa: S608
                (ended_before,),
            )
        return len(expired)

    # Internals.

    def _recover(self) -> None:
        """Delete what no record refers to, and what does not count of results."""
        sizes = {}
        for batch in self.unfinished():
            sizes[batch.output_file_id] = batch.output_bytes
            sizes[batch.error_file_id] = batch.error_bytes
        listed = {file_id for (file_id,) in self._all("SELECT id FROM files")}
        for entry in list(self._contents.iterdir()):
            if entry.name in sizes:
                with entry.open("r+b") as content:
                    content.truncate(sizes[entry.name])
            elif entry.name not in listed:
                entry.unlink()

    def _get(self, batch_id: str) -> Batch:
        row = self._one(f"{_BATCH} WHERE id = ?", batch_id)
        if row is None:
            raise KeyError(batch_id)
        return _batch(row)

    def _append(self, file_id: str, size: int, data: bytes) -> None:
        """Write `data` after the first `size` bytes of a content."""
        if not data:
            return
        path = self.path(file_id)
        created = not path.exists()
        with path.open("r+b" if not created else "xb") as content:
            try:
                content.seek(size)
                content.truncate()
                content.write(data)
                content.flush()
                os.fsync(content.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    content.truncate(size)
                raise
        if created:
            self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._contents, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _insert_file(self, file: StoredFile) -> None:
        with self._transaction():
            self._insert(file)

    def _insert(self, file: StoredFile) -> None:
        self._database.execute(
            f"INSERT INTO files ({_FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                file.id,
                file.owner,
                file.filename,
                file.purpose,
                file.bytes,
                file.created_at,
                file.expires_at,
            ),
        )

    def _update(self, batch: Batch) -> None:
        self._database.execute(
            "UPDATE batches SET status = ?, record = ?, done = ? WHERE id = ?",
            (batch.status, _record(batch), batch.done, batch.id),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _one(self, sql: str, *arguments: Any) -> Any:
        return self._database.execute(sql, arguments).fetchone()

    def _all(self, sql: str, *arguments: Any) -> list[Any]:
        return self._database.execute(sql, arguments).fetchall()


_BATCH_COLUMNS = "id, owner, status, created_at, input_file_id, record, done"
_BATCH = f"SELECT {_BATCH_COLUMNS} FROM batches"  # noqa: S608


def _page(
    table: str, columns: str, owner: str, after: str | None, *, ascending: bool
) -> tuple[str, list[Any]]:
    sql = f"SELECT {columns} FROM {table} WHERE owner = ?"  # noqa: S608 (no client's text)
    arguments: list[Any] = [owner]
    if after is not None:
        # Of an unknown id: none, as NULL is neither greater nor less.
        sql += f" AND seq {'>' if ascending else '<'}"
        sql += f" (SELECT seq FROM {table} WHERE owner = ? AND id = ?)"  # noqa: S608
        arguments += [owner, after]
    return sql, arguments


def _record(batch: Batch) -> str:
    return json.dumps({name: getattr(batch, name) for name in _IN_RECORD})


def _batch(row: Any) -> Batch:
    batch_id, owner, status, created_at, input_file_id, record, done = row
    return Batch(
        id=batch_id,
        owner=owner,
        status=status,
        created_at=created_at,
        input_file_id=input_file_id,
        done=done,
        **json.loads(record),
    )
