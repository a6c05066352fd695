"""How far the downloads of this container are: one total over all of its files.

The downloading thread writes, and the thread that serves the progress reads.
"""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from slotkeeper.api.download_progress import Phase

WINDOW_SECONDS = 30.0
"""The speed is the average of this time: long enough for hosts that send in bursts, and short
enough to show within half a minute that nothing arrives any more."""

SAMPLE_SECONDS = 1.0

ESTIMATE_SECONDS = 5.0
ESTIMATE_BYTES = 256 * 1024
"""What a time left is estimated from, at least: connections are slow at their start."""

QUIET_SECONDS = 10.0
"""Without a byte, after which there is no time left. Parallel connections of 50 kB/s each hand over
blocks that far apart."""

MAX_SECONDS_LEFT = 30 * 24 * 3600
"""A longer estimate is none."""


class Tracker:
    """Phase, bytes and speed. Each call takes microseconds, and none fails."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0, files: int = 1) -> None:
        """`clock` returns seconds since any fixed time; `files` is how many are to be fetched."""
        self._clock = clock
        self._files = files
        self._phase: Phase = "Checking"
        self._name = ""
        self._sizes: dict[Path, int] = {}
        self._totals: dict[Path, int] = {}
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=64)
        self._active_at = 0.0
        """When the last byte arrived, or the first response before it."""
        self._lock = Lock()

    @property
    def received(self) -> int:
        """Bytes that this container has received, without those of earlier ones."""
        return self._received

    def enter(self, phase: Phase) -> None:
        """Report this phase from now on."""
        self._phase = phase

    def begin(self, path: Path, name: str) -> None:
        """Report the name of the file that is fetched to `path`."""
        self._name = name
        self._set(self._sizes, path, self._sizes.get(path, 0))
        self.enter("Checking")

    def expect(self, path: Path, total: int | None) -> None:
        """Record the size of the complete file, as soon as it is known."""
        if total is not None:
            self._set(self._totals, path, total)

    def started(self, path: Path, size: int, total: int | None) -> None:
        """A response has started, after `size` bytes that are there already."""
        self.expect(path, total)
        self._set(self._sizes, path, size)
        now = self._clock()
        measured = self._received - self._samples[0][1] if self._samples else 0
        if measured < ESTIMATE_BYTES:
            # Such as after the checks of headers, whose bytes show no speed.
            self._measure_anew()
        if self._phase != "Downloading":
            # After an interruption the phase is still this one, and nothing has arrived since.
            self._active_at = now
        self._phase = "Downloading"
        self._sample(now)

    def received_up_to(self, path: Path, size: int) -> None:
        """The file has this size now."""
        now = self._clock()
        if now - self._active_at > QUIET_SECONDS:
            # The pause is not the speed of what arrives from now on.
            self._measure_anew()
        self._active_at = now
        self._received += max(0, size - self._sizes.get(path, 0))
        self._sizes[path] = size
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._sample(now)

    def completed(self, path: Path, size: int) -> None:
        """The file is in place."""
        self._set(self._sizes, path, size)
        self._set(self._totals, path, size)

    def report(self) -> dict[str, str | int | None]:
        """Return the progress as a JSON object."""
        with self._lock:
            downloaded = sum(self._sizes.values())
            known = len(self._totals) >= max(self._files, len(self._sizes))
            total = sum(self._totals.values()) if known else None
            now = self._clock()
            speed = self._speed(now)
            left = None if total is None else self._seconds_left(now, total - downloaded)
        return {
            "file": self._name,
            # A host may send more than it has announced, until the download ends for it.
            "bytes": total if total is None else max(total, downloaded),
            "downloadedBytes": downloaded,
            "bytesPerSecond": speed if self._phase == "Downloading" else None,
            "secondsLeft": left if self._phase == "Downloading" else None,
            "phase": self._phase,
        }

    def _speed(self, now: float) -> int | None:
        """Bytes per second in the window; 0 if none has arrived in it, None until it is known."""
        if not self._samples:
            return None
        if now - self._active_at >= WINDOW_SECONDS:
            return 0
        seconds, size = self._measured(now)
        return round(size / seconds) if seconds >= SAMPLE_SECONDS and size else None

    def _seconds_left(self, now: float, missing: int) -> int | None:
        """The time for the missing bytes, at the speed until the last one arrived: while nothing
        arrives, it does not grow, and soon there is none."""
        if now - self._active_at > QUIET_SECONDS:
            return None
        seconds, size = self._measured(self._active_at)
        if seconds < ESTIMATE_SECONDS or size < ESTIMATE_BYTES:
            return None
        left = math.ceil(max(0, missing) * seconds / size)
        return left if left <= MAX_SECONDS_LEFT else None

    def _measured(self, now: float) -> tuple[float, int]:
        """Seconds since the oldest sample in the window, and the bytes that arrived in them."""
        recent = (sample for sample in self._samples if now - sample[0] <= WINDOW_SECONDS)
        since, received = next(recent, (now, self._received))
        return now - since, self._received - received

    def _measure_anew(self) -> None:
        with self._lock:
            self._samples.clear()

    def _sample(self, now: float) -> None:
        with self._lock:
            self._samples.append((now, self._received))

    def _set(self, values: dict[Path, int], path: Path, value: int) -> None:
        # Under the lock, where a key may be new: the other thread iterates.
        with self._lock:
            values[path] = value
