"""A connection's timeout."""

import asyncio
from collections.abc import Callable


class Timer:
    """One timeout at a time. Moving its deadline back reuses the pending timer of the loop."""

    __slots__ = ("_action", "_deadline", "_handle", "_handle_due", "_loop", "_phase")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._deadline = self._handle_due = 0.0
        self._action: Callable[[], None] | None = None
        self._phase = ""

    def start(self, seconds: float, action: Callable[[], None], phase: str = "") -> None:
        """Call `action` in `seconds`, replacing a running timeout.

        A running timeout of the same `phase` (not empty) is left as it is instead.
        """
        if phase and phase == self._phase and self._action:
            return
        self._phase = phase
        self._action = action
        self._deadline = self._loop.time() + seconds
        if self._handle and self._handle_due > self._deadline:
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._schedule()

    def stop(self) -> None:
        """Cancel the timeout."""
        self._action = None

    def _on_timer(self) -> None:
        self._handle = None
        if self._action is None:
            return
        if self._loop.time() < self._deadline:
            self._schedule()
            return
        action = self._action
        self._action = None
        action()

    def _schedule(self) -> None:
        # uvloop's handles do not report their time if less than a millisecond remains.
        self._handle_due = self._deadline
        self._handle = self._loop.call_at(self._deadline, self._on_timer)
