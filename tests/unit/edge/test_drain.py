import asyncio

from slotkeeper.edge.drain import wait_idle


async def test_what_begins_as_the_last_request_ends_is_waited_for() -> None:
    idle = asyncio.Event()
    drained = asyncio.ensure_future(wait_idle(idle, 10))
    await asyncio.sleep(0)

    idle.set()
    idle.clear()
    for _ in range(3):
        await asyncio.sleep(0)

    assert not drained.done()
    idle.set()
    await drained


async def test_the_wait_has_an_end() -> None:
    idle = asyncio.Event()

    await wait_idle(idle, 0.001)

    assert not idle.is_set()
