"""Exponential back-off. Pure: the number of failures and randomness are arguments."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with each consecutive failure, up to a maximum."""

    first: float
    """Seconds after the first failure."""
    maximum: float
    """Upper bound of all delays, in seconds."""

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after `failures` consecutive failures, at least 1."""
        # The exponent is bounded because a float overflows: a server may fail for years.
        return min(self.maximum, self.first * 2.0 ** min(failures - 1, 64))

    def jittered(self, failures: int, random: float) -> float:
        """Return the delay shortened by up to half, so that many retries do not coincide.

        `random` is from 0 to 1; 0 gives the full delay.
        """
        return self.delay(failures) * (1 - random / 2)
