"""Time-weighted sum of a step function, for means of values that change only at events."""


class TimeWeightedSum:
    """The sum of value times seconds. A value holds until the next one is set; initially 0."""

    def __init__(self) -> None:
        self.value = 0
        self._sum = 0.0
        self._last = 0.0

    def set(self, value: int, now: float) -> None:
        """Set the value from `now` on."""
        self.total(now)
        self.value = value

    def total(self, now: float) -> float:
        """Return the sum until `now`, which is never before the `now` of an earlier call."""
        self._sum += self.value * (now - self._last)
        self._last = now
        return self._sum
