"""The queue: each key once, one at a time, failing ones apart."""

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
class Alarms:
    """Timers that go off when a test says so."""

    set_for: list[float] = field(default_factory=list)
    actions: list[Callable[[], None]] = field(default_factory=list)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.set_for.append(seconds)
        self.actions.append(action)

    def ring(self) -> None:
        self.actions.pop(0)()


@asynccontextmanager
async def working(
    queue: WorkQueue, work: Callable[[Key], Awaitable[None]], workers: int = 4
) -> Any:
    task = asyncio.create_task(queue.run(work, workers=workers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_added_twice_is_worked_on_once() -> None:
    queue, done = WorkQueue(States(lambda: 0.0), Random(1)), list[Key]()

    async def work(key: Key) -> None:
        done.append(key)

    queue.add(A)
    queue.add(A)
    queue.add(B)
    async with working(queue, work):
        await until(lambda: len(done) == 2)
        await asyncio.sleep(0)

    assert done == [A, B]


async def test_a_key_added_while_it_is_worked_on_is_next_never_beside() -> None:
    queue, running, most = WorkQueue(States(lambda: 0.0), Random(1)), 0, 0
    started = list[asyncio.Event]()

    async def work(_: Key) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
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

    assert (len(started), most) == (2, 1)


async def test_one_servers_trouble_stalls_no_other() -> None:
    alarms = Alarms()
    queue, done = WorkQueue(States(lambda: 0.0), Random(1), alarms.later), list[Key]()

    async def work(key: Key) -> None:
        if key == A:
            await asyncio.Event().wait()
        done.append(key)

    async with working(queue, work, workers=2):
        queue.add(A)
        for _ in range(3):
            queue.add(B)
            await until(lambda: not len(queue))
        await until(lambda: len(done) >= 1)

    assert set(done) == {B}


async def test_what_settles_is_worked_on_once_however_much_news_comes() -> None:
    alarms, done = Alarms(), list[Key]()
    queue = WorkQueue(States(lambda: 0.0), Random(1), alarms.later)

    async def work(key: Key) -> None:
        done.append(key)

    async with working(queue, work):
        for _ in range(5):
            queue.add_debounced(A)
        await asyncio.sleep(0)
        early = list(done)
        alarms.ring()
        await until(lambda: bool(done))

    assert (early, done, alarms.set_for) == ([], [A], [DEBOUNCE_SECONDS])


async def test_what_is_added_waits_for_nothing_to_settle() -> None:
    alarms, done = Alarms(), list[Key]()
    queue = WorkQueue(States(lambda: 0.0), Random(1), alarms.later)

    async def work(key: Key) -> None:
        done.append(key)

    async with working(queue, work):
        queue.add_debounced(A)
        queue.add(A)
        await until(lambda: bool(done))
        alarms.ring()
        await asyncio.sleep(0)

    assert done == [A]


async def test_what_was_added_comes_first_and_what_has_settled_is_not_left_out() -> None:
    alarms, done = Alarms(), list[Key]()
    queue = WorkQueue(States(lambda: 0.0), Random(1), alarms.later)
    users = [Key("default", f"new-{index}") for index in range(3 * LOW_PRIORITY_TURN)]

    async def work(key: Key) -> None:
        done.append(key)

    for key in (A, B):
        queue.add_debounced(key)
        alarms.ring()
    for key in users:
        queue.add(key)
    async with working(queue, work, workers=1):
        await until(lambda: len(done) == len(users) + 2)

    turns = [done.index(key) for key in (A, B)]
    assert turns == [0, LOW_PRIORITY_TURN]


@pytest.mark.parametrize("error", [RetryError("not yet"), RuntimeError("a bug")])
async def test_what_fails_is_tried_again_further_and_further_apart(error: Exception) -> None:
    alarms, tries = Alarms(), 0
    queue = WorkQueue(States(lambda: 0.0), Random(1), alarms.later)

    async def work(_: Key) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise error

    async with working(queue, work):
        queue.add(A)
        for _ in range(3):
            await until(lambda: alarms.actions)
            assert queue.is_failing(A)
            alarms.ring()
        await until(lambda: tries == 4)
        await until(lambda: not queue.is_failing(A))

    assert 1 <= alarms.set_for[0] <= 2 <= alarms.set_for[1] <= 4 <= alarms.set_for[2] <= 8
