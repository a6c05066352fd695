"""The store, used from the event loop: the database in one thread, contents in others."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from slotkeeper.batches import lines
from slotkeeper.batches.lines import Index, Line
from slotkeeper.batches.store import Store

T = TypeVar("T")

_READERS = 2


class Disk:
    """Runs what blocks in threads. What runs on the store is done in the order of the calls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = ThreadPoolExecutor(1, "state")
        self._contents = ThreadPoolExecutor(_READERS, "contents")

    async def run(self, work: Callable[[Store], T]) -> T:
        """Run `work` on the store. Raises what that raises: OSError or sqlite3.Error."""
        return await asyncio.get_running_loop().run_in_executor(self._state, work, self._store)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run something that takes long, without the store."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._contents, work, *arguments)

    def path(self, file_id: str) -> Path:
        """Return the path of a file's content."""
        return self._store.path(file_id)

    async def scan(
        self, path: Path, endpoint: str, max_line: int, models: Collection[str] | None
    ) -> Index:
        """See `lines.scan`."""
        return await self.in_thread(lines.scan, path, endpoint, max_line, models)

    async def read_line(self, descriptor: int, index: Index, line: int, endpoint: str) -> Line:
        """See `lines.read_line`."""
        return await self.in_thread(lines.read_line, descriptor, index, line, endpoint)

    def close(self) -> None:
        """Close the store when what runs has ended."""
        self._contents.shutdown(cancel_futures=True)
        self._state.shutdown(cancel_futures=True)
        self._store.close()
