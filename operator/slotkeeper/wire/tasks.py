"""Tasks that run in the background of a connection's requests."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Keeps references to running tasks: the event loop has weak ones only."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task until it is done."""
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def join(self, *, cancel: bool = False) -> None:
        """Wait until all are done; with `cancel`, cancel them before."""
        running = list(self._running)
        if cancel:
            for task in running:
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
