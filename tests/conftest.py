"""What all tests share: the number of random inputs, the environment, the state of logging."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples each time: a run that fails here fails everywhere.
settings.register_profile("usual", derandomize=True, deadline=None)
# `make test-long`: other examples each time, and many.
settings.register_profile("long", max_examples=5000, deadline=None)
settings.load_profile("usual")

# A `make` that a test runs must not take the variables and options of the `make` that runs the
# tests, nor print the folders that a nested one does.
for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def logging_state() -> Iterator[None]:
    """Tests that call a `main` set levels and handlers, which belong to the whole process."""
    loggers = [logging.getLogger(), logging.getLogger("slotkeeper")]
    levels = [logger.level for logger in loggers]
    handlers = loggers[0].handlers[:]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
