"""The event loops that tests of the byte path run on."""

import asyncio
import warnings
from collections.abc import Callable

import uvloop
from typing_extensions import override


class UvLoop(uvloop.Loop):
    """uvloop's loop, whose close() returns also if sockets are still open, as in a failed test.

    For each of them uvloop issues a ResourceWarning. Where that is an error, as in these tests, the
    exception keeps the socket from being closed, and close() waits for it forever.
    """

    @override
    def close(self) -> None:
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always")
            super().close()
        for each in unclosed:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test on the event loop that production uses and on Python's own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": UvLoop}
