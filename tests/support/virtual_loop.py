"""An event loop in virtual time: where nothing is left to run, the clock jumps to the next timer.

Hours pass in a moment, and the same in each run: computing takes no time, and only sleeping does.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Python's own loop without real time. Nothing may wait for a socket."""

    def __init__(self) -> None:
        self.clock = _JumpingSelector()
        super().__init__(self.clock)

    @override
    def time(self) -> float:
        return self.clock.now


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("deadlock: nothing is left to run, and no timer is set")
        self.now += max(0.0, timeout)
        return super().select(0)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time, from 0 s."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
