import asyncio

import pytest
import uvloop

from slotkeeper.wire.timer import Timer


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_timeout_can_be_restarted_when_it_is_almost_due(new_loop: object) -> None:
    async def restart_when_almost_due() -> None:
        fired = asyncio.Event()
        timer = Timer(asyncio.get_running_loop())
        timer.start(0.0, lambda: pytest.fail("the replaced timeout fired"))
        timer.start(0.01, fired.set)
        await fired.wait()

    assert callable(new_loop)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(restart_when_almost_due())
