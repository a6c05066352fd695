"""Which server or gateway to reconcile next: each by one worker at a time, failing ones later.

As client-go's work queue, with a second, debounced lane for frequent changes, and fair among
namespaces: they take turns, and none of them occupies all workers.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

from slotkeeper.backoff import Backoff
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.fair_lane import FairLane

WORKERS = 16
"""Keys that are worked on at the same time, and so the bound of concurrent writes. One namespace
has at most half of them."""

RETRY = Backoff(2.0, 300.0)
"""Between two passes of a server whose passes fail."""

DEBOUNCE_SECONDS = 0.5
"""How long changes of children and pods are collected: there are dozens while a server starts, and
each pass may write a status."""

LOW_PRIORITY_TURN = 8
"""One turn in this many takes from the debounced lane first, however many keys were added."""

log = logging.getLogger(__name__)


class RetryError(Exception):
    """The pass cannot finish yet, for the reason in the message; it may succeed later."""


class Failures(Protocol):
    """Counts failures in a row by key."""

    def failures(self, key: Key) -> int:
        """Return the count."""
        ...

    def add_failure(self, key: Key) -> int:
        """Add one failure and return the count."""
        ...

    def reset_failures(self, key: Key) -> None:
        """Set the count to zero."""
        ...


Work = Callable[[Key], Awaitable[None]]


class WorkQueue:
    """Due keys, each at most once.

    A key that is added while it is being worked on is due again right after. Keys that were added
    come before debounced ones. Work that raises is tried again after a back-off; its exception
    concerns its own key only.

    A namespace may have as many active keys as there are idle workers, the dynamic threshold of
    shared buffers (Choudhury and Hahne, 1998): one alone has half of the workers, n have an equal
    share and leave one share to the next. So work that hangs in one namespace delays none of the
    others.
    """

    def __init__(
        self,
        failures: Failures,
        rng: Random,
        later: Callable[[float, Callable[[], None]], object] | None = None,
        workers: int = WORKERS,
        noun: str = "server",
    ) -> None:
        """`later(seconds, action)` schedules an action; by default with the event loop.

        `noun`: what a key is, in the log.
        """
        self._noun = noun
        self._failures = failures
        self._workers = workers
        self._rng = rng
        self._later = later or (lambda after, do: asyncio.get_running_loop().call_later(after, do))
        self._due = FairLane()
        self._debouncing: set[Key] = set()
        self._debounced = FairLane()
        self._retries: dict[Key, object] = {}
        """The last retry of each failing key, which alone will make it due."""
        self._turns = itertools.cycle(range(LOW_PRIORITY_TURN))
        self._active: set[Key] = set()
        self._active_in: Counter[str] = Counter()
        """Active keys by namespace."""
        self._added = asyncio.Event()

    def __len__(self) -> int:
        """Due keys."""
        return len(self._due) + len(self._debounced)

    def add(self, key: Key) -> None:
        """Make the key due at once."""
        self._debouncing.discard(key)
        self._debounced.discard(key)
        self._due.add(key)
        self._added.set()

    def add_debounced(self, key: Key) -> None:
        """Make the key due after DEBOUNCE_SECONDS, unless it is or will be due anyway."""
        if key not in self._due and key not in self._debounced and key not in self._debouncing:
            self._debouncing.add(key)
            self._later(DEBOUNCE_SECONDS, lambda: self._end_debounce(key))

    def is_failing(self, key: Key) -> bool:
        """Whether the last pass failed: only a change should bring the next before its time."""
        return self._failures.failures(key) > 0

    async def run(self, work: Work) -> None:
        """Work on due keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker(work))

    def take(self) -> Key | None:
        """The next due key, which must be given to `done`; None where none may be worked on."""
        lanes = [self._due, self._debounced]
        if next(self._turns) == 0:
            lanes.reverse()
        for lane in lanes:
            key = lane.take(self._has_share, lambda key: key not in self._active)
            if key is not None:
                self._active.add(key)
                self._active_in[key.namespace] += 1
                return key
        return None

    def done(self, key: Key) -> None:
        """The work on a key that was taken has ended."""
        self._active.remove(key)
        self._active_in[key.namespace] -= 1
        if not self._active_in[key.namespace]:
            del self._active_in[key.namespace]
        if key in self._due or key in self._debounced:
            self._added.set()

    def succeeded(self, key: Key) -> None:
        """The work on a key succeeded."""
        self._retries.pop(key, None)
        self._failures.reset_failures(key)

    def retry(self, key: Key) -> float:
        """The work on a key failed: make it due again after a back-off, in the returned seconds."""
        delay = RETRY.jittered(self._failures.add_failure(key), self._rng.random())
        retry = self._retries[key] = object()
        self._later(delay, lambda: self._end_back_off(key, retry))
        return delay

    def _has_share(self, namespace: str) -> bool:
        return self._active_in[namespace] < self._workers - len(self._active)

    async def _worker(self, work: Work) -> None:
        while True:
            key = self.take()
            if key is None:
                self._added.clear()
                await self._added.wait()
                continue
            try:
                await self._work(work, key)
            finally:
                self.done(key)

    async def _work(self, work: Work, key: Key) -> None:
        try:
            await work(key)
        except Exception as error:
            delay = self.retry(key)
            expected = isinstance(error, ApiError | RetryError)
            log.warning(
                "%s %s: %s; retrying in %.0f s",
                self._noun,
                key,
                error if expected else repr(error),
                delay,
                exc_info=None if expected else error,
            )
        else:
            self.succeeded(key)

    def _end_back_off(self, key: Key, retry: object) -> None:
        # Changes bring further passes, which may fail too; each retry of its own would never end.
        if self._retries.get(key) is retry:
            del self._retries[key]
            self.add(key)

    def _end_debounce(self, key: Key) -> None:
        if key in self._debouncing:
            self._debouncing.remove(key)
            self._debounced.add(key)
            self._added.set()
