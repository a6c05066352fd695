"""Finds the diagnosis of a log, a termination message or an event. The text is untrusted."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slotkeeper.llamacpp.diagnosis import accelerators, others
from slotkeeper.llamacpp.diagnosis.row import Row, Subject
from slotkeeper.llamacpp.log import ending, message

TABLE: tuple[Row, ...] = (*accelerators.ROWS, *others.ROWS)
"""All rows. The first that matches is the diagnosis: those that explain others come first."""

_ENDING = tuple(row for row in TABLE if not row.is_survived)

MAX_TEXT = 64 * 1024
"""Characters of a text that are searched: the last ones."""

MAX_LINE = 1000
"""Characters of a line that are searched, so that a pattern's time is bounded."""

MAX_QUOTE = 300
"""Characters of the line in a diagnosis."""

FROM_FILE = re.compile(
    r"(?<![A-Za-z_])(?:print_info|llama_model_loader|clip_model_loader|load_hparams): "
)
"""In lines with texts of the model's file, such as its name, which may look like any other line."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what to do."""

    row: Row
    line: str = ""
    """The line that says so; empty if an exit code did."""

    @property
    def reason(self) -> str:
        """CamelCase, as the reason of a condition."""
        return self.row.reason

    @property
    def is_of_accelerator(self) -> bool:
        """Whether the GPU, its driver or its memory is the cause."""
        return self.row.subject is Subject.ACCELERATOR

    @property
    def advice(self) -> str:
        """Meaning and remedy, for users, as the end of a message."""
        return f"{self.row.meaning}; {self.row.remedy}"


def diagnose(
    text: str, exit_code: int | None = None, rows: Iterable[Row] = TABLE
) -> Diagnosis | None:
    """Return the diagnosis of a text, and of the exit code if there is one; None if unknown.

    Never raises, whatever the text is.
    """
    lines = split(text)
    candidates = tuple(rows)
    for row in candidates:
        if line := _line(row, lines):
            return Diagnosis(row, line)
    matching = (row for row in candidates if exit_code in row.exit_codes)
    found_row = next(matching, None)
    return None if found_row is None else Diagnosis(found_row)


def diagnose_end(log: str, exit_code: int | None = None) -> Diagnosis | None:
    """Return why a container ended; `log`: the end of its log, or what the runtime says.

    What a program survives explains its end only if nothing else in the log does.
    """
    return diagnose(log, exit_code, _ENDING) or diagnose(ending(log))


def split(text: str) -> list[str]:
    """Return the lines of a text's end that are searched: without those of the model's file."""
    lines = (line[:MAX_LINE] for line in text[-MAX_TEXT:].splitlines())
    return [line for line in lines if not FROM_FILE.search(line)]


def quoted(line: str, at: int = 0) -> str:
    """Return a line as messages quote it: without time and control characters, and of a long one
    the part around the position `at`."""
    shown = "…" + line[at - MAX_QUOTE // 4 :] if at > MAX_QUOTE // 2 else line
    return message(shown.strip())[:MAX_QUOTE].strip()


def _line(row: Row, lines: Sequence[str]) -> str:
    if row.pattern is None:
        return ""
    found = next(filter(None, map(row.pattern.search, lines)), None)
    if found and row.quote:
        found = next(filter(None, map(row.quote.search, lines)), found)
    return quoted(found.string, found.start()) if found else ""
