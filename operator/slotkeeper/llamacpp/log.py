"""Finds the line in a program's log that states why it ended.

llama-server's last lines are consequences, such as `exiting due to model loading error`, or a
backtrace. The cause is the first of its errors. The log is untrusted, and usually only its end.
"""

import re

_PREFIX = re.compile(r"^\d+(?:\.\d+){3} (?P<level>[A-Z]) +")
"""Time and level of llama.cpp's log, such as `0.00.009.911 E `."""

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


def cause(log: str) -> str:
    """Return the line that states why the program ended, without time and level.

    It is the last line if none is better, and empty for an empty log, or if there is only a
    backtrace.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if fatal := next(filter(_FATAL.search, lines), None):
        return _message(fatal)
    lines = [line for line in lines if not _UNINFORMATIVE.search(_message(line))]
    errors = [line for line in lines if _is_error(line) and not _EXITING.search(line)]
    if not errors:
        return _message(lines[-1]) if lines else ""
    # While it starts, the first error causes the others. Later, earlier ones may be of requests.
    return _message(errors[0] if _EXITING.search(lines[-1]) else errors[-1])


def _is_error(line: str) -> bool:
    prefix = _PREFIX.match(line)
    return prefix is not None and prefix["level"] == "E"


def _message(line: str) -> str:
    return _PREFIX.sub("", line)
