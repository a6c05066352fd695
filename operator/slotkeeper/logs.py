"""Logging of all commands: text for people or JSON for collectors, one record per line."""

import argparse
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from typing_extensions import override

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_LAST_SECOND = 253_402_300_799.0
"""Of the year 9999. The time of a file, which its owner sets, may be later."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --log-format and --log-level to a command's parser."""
    parser.add_argument(
        "--log-format",
        default="text",
        choices=FORMATS,
        help="text for people, json for log collectors (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        type=str.lower,
        choices=LEVELS,
        help="minimum level of logged records (default: %(default)s)",
    )


def configure(
    form: str, level: str, *, stream: TextIO | None = None, command: str | None = None
) -> None:
    """Log to `stream` (default: standard error) in a format of FORMATS, at a level of LEVELS. As
    text, records of a `command` that a person runs look like argparse's errors.

    Libraries log warnings and errors only: httpx, for example, logs whole URLs, which may contain
    tokens, at level info.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(command))
    root = logging.getLogger()
    for previous in root.handlers[:]:
        if isinstance(previous.formatter, TextFormatter | JsonFormatter):
            root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    own = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("slotkeeper").setLevel(own)
    if own <= logging.DEBUG:
        logging.getLogger("kopf").setLevel(logging.INFO)


def utc_text(seconds: float) -> str:
    """Return a Unix time as `2026-11-28T12:00:00Z`; the nearest from the years 1970 to 9999."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_SECOND), UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-11-28T12:00:00Z INFO slotkeeper.reconcile.runtime: message`; of a command,
    `slotkeeper plan: error: message`."""

    def __init__(self, command: str | None = None) -> None:
        super().__init__()
        self._command = command

    @override
    def format(self, record: logging.LogRecord) -> str:
        source = f"{utc_text(record.created)} {record.levelname} {record.name}"
        if self._command:
            source = f"{self._command}: {record.levelname.lower()}"
        # A message may contain text from a server, which must not look like a separate record.
        message = _CONTROL.sub(lambda match: repr(match[0])[1:-1], record.getMessage())
        line = f"{source}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": "info", "logger": …, "message": …}`, with `traceback` after errors.

    `time` is in seconds since 1970, as in the access log.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
