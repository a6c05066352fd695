"""Which server to look at next: one at a time each, failing ones further and further apart."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from random import Random

from slotkeeper.backoff import Backoff
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.objects import Key

RETRY = Backoff(2.0, 300.0)
"""Between two tries of a server whose reconcile fails."""

DEBOUNCE_SECONDS = 0.5
"""How long news of children and pods gather: they come by the dozen while a server starts, and
each look may write a status."""

LOW_PRIORITY_TURN = 8
"""Of so many turns one is for what has settled, however much was added meanwhile."""

log = logging.getLogger(__name__)


class RetryError(Exception):
    """What was asked cannot be done yet, for the reason in the message; it may heal by itself."""


Work = Callable[[Key], Awaitable[None]]


class WorkQueue:
    """Keys that are due, each in there once and worked on by one at a time.

    A key that is added while it is worked on is due again right after. What was added comes before
    what has settled. Work that raises is tried again after a back-off; what it raises stays with
    its own key.
    """

    def __init__(
        self, rng: Random, later: Callable[[float, Callable[[], None]], object] | None = None
    ) -> None:
        """`later(seconds, action)` calls the action then; the event loop's own by default."""
        self._rng = rng
        self._later = later or (lambda after, do: asyncio.get_running_loop().call_later(after, do))
        self._high_priority: dict[Key, None] = {}
        self._debouncing: set[Key] = set()
        self._low_priority: dict[Key, None] = {}
        self._turns = itertools.cycle(range(LOW_PRIORITY_TURN))
        self._active: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._added = asyncio.Event()

    def __len__(self) -> int:
        """How many keys are due."""
        return len(self._high_priority) + len(self._low_priority)

    def add(self, key: Key) -> None:
        """Have the key worked on at once."""
        self._debouncing.discard(key)
        self._low_priority.pop(key, None)
        self._high_priority[key] = None
        self._added.set()

    def add_debounced(self, key: Key) -> None:
        """Have the key worked on in a moment: more of its kind may come until then."""
        if (
            key not in self._high_priority
            and key not in self._low_priority
            and key not in self._debouncing
        ):
            self._debouncing.add(key)
            self._later(DEBOUNCE_SECONDS, lambda: self._debounced(key))

    def is_failing(self, key: Key) -> bool:
        """Whether the last try failed, so that only news should bring one before its time."""
        return key in self._failures

    async def run(self, work: Work, *, workers: int) -> None:
        """Work on what is due, `workers` keys at a time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(work))

    async def _worker(self, work: Work) -> None:
        while True:
            key = self._take()
            if key is None:
                self._added.clear()
                await self._added.wait()
                continue
            try:
                await self._try(work, key)
            finally:
                self._active.remove(key)
                if key in self._high_priority or key in self._low_priority:
                    self._added.set()

    def _take(self) -> Key | None:
        lanes = [self._high_priority, self._low_priority]
        if next(self._turns) == 0:
            lanes.reverse()
        for lane in lanes:
            for key in lane:
                if key not in self._active:
                    del lane[key]
                    self._active.add(key)
                    return key
        return None

    def _debounced(self, key: Key) -> None:
        if key in self._debouncing:
            self._debouncing.remove(key)
            self._low_priority[key] = None
            self._added.set()

    async def _try(self, work: Work, key: Key) -> None:
        try:
            await work(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = RETRY.jittered(failures, self._rng.random())
            expected = isinstance(error, ApiError | RetryError)
            log.warning(
                "server %s: %s; next try in %.0f s",
                key,
                error if expected else repr(error),
                delay,
                exc_info=None if expected else error,
            )
            self._later(delay, lambda: self.add(key))
        else:
            self._failures.pop(key, None)
