"""A connection's time limits."""

import asyncio
from collections.abc import Callable


class Timer:
    """One time limit at a time; setting it costs no timer of the loop's unless it comes nearer."""

    __slots__ = ("_action", "_due", "_kept", "_loop", "_timer", "_timer_due")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._timer_due = 0.0
        self._action: Callable[[], None] | None = None
        self._kept = ""

    def start(self, seconds: float, action: Callable[[], None], keep: str = "") -> None:
        """Call `action` in `seconds`, in place of what was set; the same `keep` keeps its time."""
        if keep and keep == self._kept and self._action:
            return
        self._kept = keep
        self._action = action
        self._due = self._loop.time() + seconds
        if self._timer and self._timer_due > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._set_timer()

    def stop(self) -> None:
        """Call nothing."""
        self._action = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._action is None:
            return
        if self._loop.time() < self._due:
            self._set_timer()
            return
        action = self._action
        self._action = None
        action()

    def _set_timer(self) -> None:
        # uvloop's handles do not say when, if that is less than a millisecond away.
        self._timer_due = self._due
        self._timer = self._loop.call_at(self._due, self._on_timer)
