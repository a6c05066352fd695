import asyncio
from collections.abc import Callable

import event_loops


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    # The process runs with it. What differs between the loops is in wire/, which has tests on both.
    return {"uvloop": event_loops.UvLoop}
