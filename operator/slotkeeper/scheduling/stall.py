"""Stall detection for one replica."""

from collections.abc import Mapping
from typing import Any


class StallDetector:
    """Measures for how long a replica with running requests has made no progress.

    Progress is read from counters that exist anyway, at each observation and not per token. A
    request that begins is no progress; one that continues or completes is.
    """

    def __init__(self, now: float) -> None:
        self.last_progress = now
        """When it last made progress, or had no running request."""
        self._completed = 0
        self._received: Mapping[Any, int] = {}

    def observe(self, received: Mapping[Any, int], completed: int, now: float) -> float:
        """Return the seconds without progress; 0 while no request runs.

        `received`: by running request, how much of its response has arrived, 0 for nothing yet;
        `completed`: how many responses have been completed since the start.
        """
        progressed = any(
            self._received.get(request, 0) != amount for request, amount in received.items()
        )
        if progressed or not received or completed != self._completed:
            self.last_progress = now
        self._received = received
        self._completed = completed
        return now - self.last_progress
