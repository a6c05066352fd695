import asyncio
from collections.abc import Callable

import pytest

import event_loops
from stepped_loop import SteppedLoop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "clock" in getattr(item, "fixturenames", ()):
        return {"stepped": SteppedLoop}
    if item.get_closest_marker("uvloop"):
        return {"uvloop": event_loops.UvLoop}
    return event_loops.pytest_asyncio_loop_factories()


@pytest.fixture
async def clock() -> SteppedLoop:
    """The loop of a test that moves its clock forward."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    return loop
