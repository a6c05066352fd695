"""An event loop whose clock a test can move forward, in place of sleeping."""

import asyncio

from typing_extensions import override

_ROUNDS = 20
"""Rounds of the loop after each step: enough for a request and its response on the loopback."""


class SteppedLoop(asyncio.SelectorEventLoop):
    """Python's own loop. Sockets are real, and time also passes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    @override
    def time(self) -> float:
        return super().time() + self._ahead

    async def advance(self, seconds: float, *, step: float = 0.1) -> None:
        """Move the clock forward in steps, and run everything that is due after each of them."""
        for _ in range(round(seconds / step)):
            self._ahead += step
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
