"""The work queue: each key once and by one worker at a time, failing keys with a back-off."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.state import States
from slotkeeper.reconcile.workqueue import (
    DEBOUNCE_SECONDS,
    LOW_PRIORITY_TURN,
    RetryError,
    WorkQueue,
)
from wait_until import until

A, B = Key("default", "a"), Key("default", "b")


@dataclass
class Timers:
    """Timers that a test fires itself, in the order in which they were set."""

    delays: list[float] = field(default_factory=list)
    """Of all timers that were set, in seconds."""
    actions: list[Callable[[], None]] = field(default_factory=list)
    """Of the timers that have not fired."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.delays.append(seconds)
        self.actions.append(action)

    def fire(self) -> None:
        self.actions.pop(0)()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def queue(timers: Timers) -> WorkQueue:
    return WorkQueue(States(lambda: 0.0), Random(1), timers.later)


@asynccontextmanager
async def working(queue: WorkQueue, work: Callable[[Key], Awaitable[None]]) -> Any:
    task = asyncio.create_task(queue.run(work))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_added_twice_is_worked_on_once(queue: WorkQueue) -> None:
    done = list[Key]()

    async def work(key: Key) -> None:
        done.append(key)

    queue.add(A)
    queue.add(A)
    queue.add(B)
    async with working(queue, work):
        await until(lambda: len(done) == 2)
        await asyncio.sleep(0)

    assert done == [A, B]


async def test_a_key_added_while_it_is_worked_on_is_due_once_more_afterwards(
    queue: WorkQueue,
) -> None:
    running, maximum = 0, 0
    started = list[asyncio.Event]()

    async def work(_: Key) -> None:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        started.append(release := asyncio.Event())
        await release.wait()
        running -= 1

    async with working(queue, work):
        queue.add(A)
        await until(lambda: len(started) == 1)
        queue.add(A)
        queue.add(A)
        started[0].set()
        await until(lambda: len(started) == 2)
        started[1].set()
        await until(lambda: running == 0)

    assert (len(started), maximum) == (2, 1)


async def test_work_that_does_not_end_stalls_no_other_key(timers: Timers) -> None:
    queue = WorkQueue(States(lambda: 0.0), Random(1), timers.later, workers=3)
    done = list[Key]()

    async def work(key: Key) -> None:
        if key == A:
            await asyncio.Event().wait()
        done.append(key)

    async with working(queue, work):
        queue.add(A)
        for _ in range(3):
            queue.add(B)
            await until(lambda: not len(queue))
        await until(lambda: len(done) >= 1)

    assert set(done) == {B}


async def test_debounced_changes_are_worked_on_once(queue: WorkQueue, timers: Timers) -> None:
    done = list[Key]()

    async def work(key: Key) -> None:
        done.append(key)

    async with working(queue, work):
        for _ in range(5):
            queue.add_debounced(A)
        await asyncio.sleep(0)
        early = list(done)
        timers.fire()
        await until(lambda: bool(done))

    assert (early, done, timers.delays) == ([], [A], [DEBOUNCE_SECONDS])


async def test_an_added_key_does_not_wait_for_its_debounce(
    queue: WorkQueue, timers: Timers
) -> None:
    done = list[Key]()

    async def work(key: Key) -> None:
        done.append(key)

    async with working(queue, work):
        queue.add_debounced(A)
        queue.add(A)
        await until(lambda: bool(done))
        timers.fire()
        await asyncio.sleep(0)

    assert done == [A]


async def test_added_keys_come_before_debounced_ones_except_at_every_eighth_turn(
    timers: Timers,
) -> None:
    queue = WorkQueue(States(lambda: 0.0), Random(1), timers.later, workers=1)
    done = list[Key]()
    added = [Key("default", f"new-{index}") for index in range(3 * LOW_PRIORITY_TURN)]

    async def work(key: Key) -> None:
        done.append(key)

    for key in (A, B):
        queue.add_debounced(key)
        timers.fire()
    for key in added:
        queue.add(key)
    async with working(queue, work):
        await until(lambda: len(done) == len(added) + 2)

    turns = [done.index(key) for key in (A, B)]
    assert turns == [0, LOW_PRIORITY_TURN]


@pytest.mark.parametrize("error", [RetryError("not yet"), RuntimeError("a bug")])
async def test_failing_work_is_retried_with_exponential_back_off(
    queue: WorkQueue, timers: Timers, error: Exception
) -> None:
    tries = 0

    async def work(_: Key) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise error

    async with working(queue, work):
        queue.add(A)
        for _ in range(3):
            await until(lambda: timers.actions)
            assert queue.is_failing(A)
            timers.fire()
        await until(lambda: tries == 4)
        await until(lambda: not queue.is_failing(A))

    assert 1 <= timers.delays[0] <= 2 <= timers.delays[1] <= 4 <= timers.delays[2] <= 8


def fail(queue: WorkQueue, key: Key) -> None:
    """Work on a key once, in vain."""
    queue.add(key)
    assert queue.take() == key
    queue.retry(key)
    queue.done(key)


def test_only_the_last_failure_of_a_key_is_retried(queue: WorkQueue, timers: Timers) -> None:
    for _ in range(5):
        fail(queue, A)

    for _ in range(4):
        timers.fire()
    superseded = queue.take()
    timers.fire()

    assert (superseded, queue.take()) == (None, A)


def test_a_success_cancels_the_retry(queue: WorkQueue, timers: Timers) -> None:
    fail(queue, A)

    queue.succeeded(A)
    timers.fire()

    assert queue.take() is None
