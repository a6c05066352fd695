"""Standard output to a reader that may close it early, as `head` does."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Print to standard output without an error if the reader closes it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Discard the rest of the buffer: the interpreter would flush it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
