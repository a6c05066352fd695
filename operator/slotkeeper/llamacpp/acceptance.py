"""How many of the tokens that speculative decoding guesses are right. Pure."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from slotkeeper.llamacpp.metrics import Series

WINDOW_SECONDS = 600.0
"""Of the rate: it follows a change of what is asked, and not each response."""

STEP_SECONDS = 1.0
"""Between two samples that are kept, however often the rate is asked for."""

_MAX_COUNT = 2.0**53

_GUESSED = "llamacpp:spec_decode_num_draft_tokens_total"
_ACCEPTED = "llamacpp:spec_decode_num_accepted_tokens_total"


class Guesses(NamedTuple):
    """Counts of tokens since the start."""

    guessed: int = 0
    accepted: int = 0
    """Those that were right."""


def guesses(metrics: Mapping[str, Series]) -> Guesses:
    """Return the counts in llama-server's metrics; older builds have none."""
    found = (metrics[name].value if name in metrics else 0 for name in (_GUESSED, _ACCEPTED))
    # The sum of two numbers may be infinite.
    return Guesses(*(int(min(max(value, 0.0), _MAX_COUNT)) for value in found))


class AcceptanceRate:
    """The part of the guessed tokens that was right in the last ten minutes with guesses."""

    def __init__(self) -> None:
        self.percent: int | None = None
        """None before the first guess."""
        self._samples = deque([(float("-inf"), Guesses())])

    def record(self, counts: Guesses, now: float) -> None:
        """Record the counts, which never decrease, at this time."""
        samples = self._samples
        last, _ = samples[-1]
        if last > now - STEP_SECONDS:
            samples[-1] = last, counts
        else:
            samples.append((now, counts))
        # One from before the window remains: its end is where the window begins.
        while len(samples) > 1 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()
        before = samples[0][1]
        if guessed := counts.guessed - before.guessed:
            # After a restart, one count of a replica may already be higher than before, and the
            # other one not: what is new of them is then not of the same responses.
            percent = round(100 * (counts.accepted - before.accepted) / guessed)
            self.percent = min(max(percent, 0), 100)
