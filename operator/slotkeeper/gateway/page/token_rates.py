"""Generated tokens per second of each model, through this gateway pod. Pure."""

import math
from collections import deque
from collections.abc import Collection

WINDOW_SECONDS = 60


class TokenRates:
    """Mean rates over the last minute.

    The tokens of a response count when it ends, since only then its usage is known. Over a minute
    of many responses the mean is the same as if each token counted when it was generated.
    """

    def __init__(self) -> None:
        self._rates: dict[str, _Window] = {}

    def record(self, model: str, tokens: int, *, now: float) -> None:
        """Count the generated tokens of a response of `model` that ended now."""
        self._rates.setdefault(model, _Window()).add(tokens, math.floor(now))

    def rate(self, model: str, *, now: float) -> float:
        """Return the tokens per second of `model`."""
        window = self._rates.get(model)
        return window.total(math.floor(now)) / WINDOW_SECONDS if window else 0.0

    def keep(self, models: Collection[str]) -> None:
        """Forget all other models: those of deleted servers."""
        for model in self._rates.keys() - set(models):
            del self._rates[model]


class _Window:
    """A sum over the last WINDOW_SECONDS whole seconds."""

    __slots__ = ("_seconds", "_total")

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, value: int, second: int) -> None:
        self.total(second)  # drops old seconds: a model that is never shown must not grow
        self._total += value
        if self._seconds and self._seconds[-1][0] == second:
            value += self._seconds.pop()[1]
        self._seconds.append((second, value))

    def total(self, second: int) -> int:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_SECONDS:
            self._total -= self._seconds.popleft()[1]
        return self._total
