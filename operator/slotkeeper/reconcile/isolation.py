"""Isolation of errors: what one server causes ends neither the process nor the work on others."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MAX_LOGGED = 1000
"""Errors that are remembered as logged: the same one may occur every second."""

log = logging.getLogger(__name__)


class Isolation:
    """Suppresses unexpected errors in one part of the operator, logs and counts them."""

    def __init__(self, part: str) -> None:
        self.on_error: Callable[[str], None] = lambda _: None
        """Called with the part for each suppressed error."""
        self._part = part
        self._logged = set[tuple[str, str]]()

    @contextmanager
    def __call__(self, subject: object) -> Iterator[None]:
        """Suppress an error of the block, which concerns only `subject`."""
        try:
            yield
        except Exception as error:
            self.on_error(self._part)
            entry = (str(subject), repr(error)[:200])
            if entry in self._logged:
                return
            if len(self._logged) >= _MAX_LOGGED:
                self._logged.clear()
            self._logged.add(entry)
            log.exception("%s: unexpected error in %s", subject, self._part)
