"""Progress on stderr: each long step with its elapsed time and its duration last time."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from provider.paths import cache, write

TICK = 20.0
"""Seconds between two progress lines of a step."""


class ClusterError(Exception):
    """An error message for the user; it ends the command."""


def print_progress(text: str) -> None:
    """Print a line of progress."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(key: str, text: str) -> Iterator[None]:
    """Print the start, progress and end of a step; store its duration under `key`."""
    duration_file = cache() / "durations" / key
    last = float(duration_file.read_text()) if duration_file.exists() else None
    print_progress(text if last is None else f"{text} (last time {format_duration(last)})")
    began = time.monotonic()
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(text, began, done), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    seconds = time.monotonic() - began
    if seconds >= 1:
        # A shorter step found everything cached, so its duration predicts nothing.
        write(duration_file, f"{seconds:.1f}\n")
        print_progress(f"{text}: {format_duration(seconds)}")


def format_duration(seconds: float) -> str:
    """Format a duration: `4 s`, `6 min 28 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _tick(text: str, began: float, done: threading.Event) -> None:
    while not done.wait(TICK):
        print_progress(f"{text} … {format_duration(time.monotonic() - began)}")
