"""Finds the line in a program's log that states why it ended.

llama-server's last lines are consequences, such as `exiting due to model loading error`, or a
backtrace. The cause is the first of its errors. The log is untrusted, and usually only its end.
"""

import re
from collections.abc import Sequence

_PREFIX = re.compile(r"^\d+(?:\.\d+){3} (?P<level>[A-Z]) +")
"""Time and level of llama.cpp's log, such as `0.00.009.911 E `."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that would reach the terminals of those who read a message."""

_FATAL = re.compile(
    r"what\(\): |GGML_ASSERT|CUDA error: |out of memory"
    r"|^error: |^error while handling argument|: error: |error loading model: tensor"
)
"""In lines that llama.cpp, or the C++ runtime, writes only when it ends."""

_EXITING = re.compile(r"exiting due to ")

_UNINFORMATIVE = re.compile(
    r"^#\d+ |\[0x[0-9a-f]+\]$|^\[(?:Inferior|New LWP|Thread)|^terminate called|^Aborted"
    r"|cleaning up before exit|^to show complete usage"
)
"""Backtraces, and what follows every failure."""


LAST_LINES = 3
"""How many are shown of a log without an error."""


def ending(log: str) -> str:
    """Return the line that states why the program ended, without time and level.

    If none is an error: the last lines, with ` / ` between them. Empty for an empty log, or if
    there is only a backtrace.
    """
    lines = _meaningful(log)
    return _error(log, lines) or " / ".join(map(message, lines[-LAST_LINES:]))


def _meaningful(log: str) -> list[str]:
    lines = (line.strip() for line in log.splitlines())
    return [line for line in lines if line and not _UNINFORMATIVE.search(message(line))]


def _error(log: str, lines: Sequence[str]) -> str:
    if fatal := next(filter(_FATAL.search, map(str.strip, log.splitlines())), None):
        return message(fatal)
    errors = [line for line in lines if _is_error(line) and not _EXITING.search(line)]
    if not errors:
        return ""
    # While it starts, the first error causes the others. Later, earlier ones may be of requests.
    return message(errors[0] if _EXITING.search(lines[-1]) else errors[-1])


def _is_error(line: str) -> bool:
    prefix = _PREFIX.match(line)
    return prefix is not None and prefix["level"] == "E"


def message(line: str) -> str:
    """Return a line of llama.cpp's log without time, level and control characters."""
    return _CONTROL.sub(" ", _PREFIX.sub("", line))
