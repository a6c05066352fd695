"""How quickly prompts are computed, and their files read: measured for each server."""

import math

_FORGET_SECONDS = 600.0
"""After a slow read, files are not restored, so that no further read is measured: in this time the
estimate returns to the initial one."""

_WEIGHT = 0.25
"""Of a new measurement."""

_MIN_TOKENS = 64
_MIN_BYTES = 2**20
"""Smaller ones measure the overhead."""


class PromptRates:
    """Moving averages of the rates, and of the size of files."""

    def __init__(
        self, *, tokens_per_second: float = 100.0, bytes_per_second: float = 200e6
    ) -> None:
        self.tokens_per_second = tokens_per_second
        """Of a prompt that is computed."""
        self.bytes_per_token: float | None = None
        """Of a file; None: none was written yet."""
        self.write_bytes_per_second: float | None = None
        """Of a file that llama-server writes; None: none was written yet."""
        self.slower_at = -math.inf
        """When a file was last found that takes longer to read than to compute."""
        self._initial_read = self._read = bytes_per_second
        self._read_at = -math.inf

    def record_compute(self, tokens: int, seconds: float) -> None:
        """Record that llama-server has computed these tokens of a prompt."""
        if tokens >= _MIN_TOKENS and seconds > 0:
            self.tokens_per_second = _average(self.tokens_per_second, tokens / seconds)

    def record_read(self, size: int, seconds: float, now: float) -> None:
        """Record that a file was read and restored."""
        if size >= _MIN_BYTES and seconds > 0:
            self._read = _average(self.read_rate(now), size / seconds)
            self._read_at = now

    def record_slow_read(self, size: int, seconds: float, now: float) -> None:
        """Record that a file was not restored in this time: such files are not tried again soon."""
        if seconds > 0:
            self._read = min(self.read_rate(now), size / seconds / 2)
            self._read_at = now

    def learn_size(self, size: int, tokens: int) -> None:
        """Use the size of a file that was written before, until one is written."""
        if self.bytes_per_token is None:
            self.bytes_per_token = size / tokens

    def record_write(self, size: int, tokens: int, seconds: float) -> None:
        """Record that a file was written."""
        if size > 0 and tokens > 0:
            self.bytes_per_token = _average(self.bytes_per_token, size / tokens)
        if size >= _MIN_BYTES and seconds > 0:
            self.write_bytes_per_second = _average(self.write_bytes_per_second, size / seconds)

    def read_rate(self, now: float) -> float:
        """Return the bytes a second at which files are read and restored."""
        age = now - self._read_at
        kept = math.exp(-age / _FORGET_SECONDS) if math.isfinite(age) else 0.0
        return self._initial_read + (self._read - self._initial_read) * kept

    def read_seconds(self, size: int, now: float) -> float:
        """Estimate the time to restore a file."""
        return size / self.read_rate(now)

    def compute_seconds(self, tokens: float) -> float:
        """Estimate the time to compute these tokens of a prompt."""
        return tokens / self.tokens_per_second

    def write_seconds(self, tokens: int) -> float:
        """Estimate the time to save a slot; infinity before one was saved."""
        if self.bytes_per_token is None or self.write_bytes_per_second is None:
            return math.inf
        return tokens * self.bytes_per_token / self.write_bytes_per_second


def _average(before: float | None, measured: float) -> float:
    return measured if before is None else before + _WEIGHT * (measured - before)
