"""Time, as an argument."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Clock:
    """Both kinds of time."""

    monotonic: Callable[[], float]
    """Seconds, to measure with."""
    wall: Callable[[], datetime]
    """To show to people; knows its zone."""
