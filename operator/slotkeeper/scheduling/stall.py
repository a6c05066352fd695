"""For how long nothing has come from a replica that has something to say."""

from collections.abc import Mapping
from typing import Any


class StallDetector:
    """One replica, looked at now and then.

    Looking costs something, saying something does not: progress is read where it is counted
    anyway. A request that begins is no sign of life, one that goes on or is answered is.
    """

    def __init__(self, now: float) -> None:
        self.since = now
        """When it last gave a sign of life, or had nothing to say."""
        self._completed = 0
        self._seen: Mapping[Any, int] = {}

    def observe(self, running: Mapping[Any, int], answers: int, now: float) -> float:
        """Seconds of silence so far, at most as many as there was something to answer.

        `running`: how much of its answer each request has, 0 for none; `answers`: how many were
        answered whole, ever.
        """
        moved = any(self._seen.get(request, 0) != got for request, got in running.items())
        if moved or not running or answers != self._completed:
            self.since = now
        self._seen = running
        self._completed = answers
        return now - self.since
