import asyncio

import pytest
import uvloop

from slotkeeper.wire.timer import Timer


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_limit_may_be_set_anew_when_the_last_one_is_almost_over(new_loop: object) -> None:
    async def almost_over() -> None:
        rang = asyncio.Event()
        clock = Timer(asyncio.get_running_loop())
        clock.start(0.0, lambda: pytest.fail("it was set anew"))
        clock.start(0.01, rang.set)
        await rang.wait()

    assert callable(new_loop)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(almost_over())
