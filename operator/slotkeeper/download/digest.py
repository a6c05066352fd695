"""SHA-256 in a thread of its own, while the next bytes are received and written."""

import hashlib
from queue import SimpleQueue
from threading import Thread

INLINE_BYTES = 64 * 1024
"""A smaller block is hashed in less time than it takes to hand it over."""


class Digest:
    """The SHA-256 of blocks. `close` ends its thread."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._blocks: SimpleQueue[bytes | memoryview | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self._thread: Thread | None = None
        self._busy = False

    def update(self, block: bytes | memoryview) -> None:
        """Add bytes, which must not change until the next call of any method has returned."""
        self.wait()
        if len(block) < INLINE_BYTES:
            self._hash.update(block)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()
        self._busy = True
        self._blocks.put(block)

    def hexdigest(self) -> str:
        """Return the digest of all bytes."""
        self.wait()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self.wait()
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Return when the last block has been hashed, and may be overwritten."""
        if self._busy:
            self._done.get()
            self._busy = False

    def _run(self) -> None:
        # hashlib releases the GIL while it computes.
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)
            self._done.put(None)
