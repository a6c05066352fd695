"""Functions that may call themselves through others, run one after the other."""

from collections.abc import Callable


class Reentry:
    """Runs `function` again after it has returned, where it is called from within itself.

    As a recursion its depth would be that of the queue which it works through.
    """

    __slots__ = ("_again", "_function", "_running")

    def __init__(self, function: Callable[[float], None]) -> None:
        self._function = function
        self._running = self._again = False

    def run(self, now: float) -> bool:
        """Run the function at a time; return whether it ran, and is not running now."""
        self._again = True
        if self._running:
            return False
        self._running = True
        try:
            while self._again:
                self._again = False
                self._function(now)
        finally:
            self._running = False
        return True
