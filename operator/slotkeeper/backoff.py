"""Exponential back-off. Pure: the number of failures and chance are arguments."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with each failure in a row, up to a maximum."""

    first: float
    """Seconds after the first failure."""
    maximum: float
    """Seconds; no delay is longer."""

    def delay(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row, at least 1."""
        # The exponent is bounded because a float overflows: a server may fail for years.
        return min(self.maximum, self.first * 2.0 ** min(failures - 1, 64))

    def jittered(self, failures: int, chance: float) -> float:
        """The same, shortened by up to half, so that many do not come back at once.

        `chance` is from 0 to 1: 0 is the whole delay.
        """
        return self.delay(failures) * (1 - chance / 2)
