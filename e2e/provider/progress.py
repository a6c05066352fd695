"""What is going on, on stderr: each long step, its elapsed time, and how long it took last time."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from provider.places import cache, write

TICK = 20.0
"""Seconds between two signs of life of a step."""


class ClusterError(Exception):
    """Something that the user must know, in words; it ends the command."""


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(key: str, text: str) -> Iterator[None]:
    """Say that a step begins, tick while it lasts, and remember under `key` how long it took."""
    remembered = cache() / "durations" / key
    last = float(remembered.read_text()) if remembered.exists() else None
    say(text if last is None else f"{text} (last time {spoken(last)})")
    began = time.monotonic()
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(text, began, done), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    took = time.monotonic() - began
    if took >= 1:
        # Shorter ones found everything in a cache, and say nothing about the next time.
        write(remembered, f"{took:.1f}\n")
        say(f"{text}: {spoken(took)}")


def spoken(seconds: float) -> str:
    """A duration for people: `4 s`, `6 min 28 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _tick(text: str, began: float, done: threading.Event) -> None:
    while not done.wait(TICK):
        say(f"{text} … {spoken(time.monotonic() - began)}")
