"""Stall detection for one replica."""

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Verdict(Enum):
    """What the signs of life of a replica mean."""

    ALIVE = "it works, or computes a long prompt"
    STALLED = "its process does not respond"
    WEDGED = "its process responds, but processes nothing"


class StallDetector:
    """Measures for how long a replica with running requests has made no progress.

    Progress is read from counters that exist anyway, at each observation and not per token. A
    request that begins is no progress; one that continues or completes is.
    """

    def __init__(self, now: float) -> None:
        self.last_progress = now
        """When it last made progress, had no running request, or was found alive."""
        self.last_life = now
        """When it last made progress, had no running request, or responded on /slots."""
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
            self.last_progress = self.last_life = now
        self._received = received
        self._completed = completed
        return now - self.last_progress

    def judge(self, *, health: bool, slots: bool, wedged: float, now: float) -> Verdict:
        """Return what a probe of /health and /slots means, after seconds without a byte.

        | /health | /slots | |
        |---|---|---|
        | no response | | stalled |
        | responds | responds | alive: a long prompt |
        | responds | no response for less than `wedged` seconds | alive: a long batch |
        | responds | no response for longer | wedged |

        llama-server responds on /health from any thread, on /slots between two batches.
        """
        if not health:
            return Verdict.STALLED
        self.last_progress = now
        if slots:
            self.last_life = now
        return Verdict.WEDGED if now - self.last_life >= wedged else Verdict.ALIVE
