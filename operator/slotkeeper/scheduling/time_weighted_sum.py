"""A number over time, added up: for means of what changes only now and then."""


class TimeWeightedSum:
    """A number times the seconds that it held. It holds until the next one is noted; 0 at first."""

    def __init__(self) -> None:
        self.value = 0
        self._sum = 0.0
        self._last = 0.0

    def set(self, value: int, now: float) -> None:
        """From `now` on the number is `value`."""
        self.total(now)
        self.value = value

    def total(self, now: float) -> float:
        """The sum until `now`, which is never before an earlier one."""
        self._sum += self.value * (now - self._last)
        self._last = now
        return self._sum
