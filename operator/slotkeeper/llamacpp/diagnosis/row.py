"""One row of the table of diagnoses."""

import re
from dataclasses import dataclass, field
from enum import Enum


class Subject(Enum):
    """What a diagnosis is about."""

    ACCELERATOR = "accelerator"
    """The GPU, its driver or its memory: a reason of the condition AcceleratorReady."""
    REPLICA = "replica"
    """Anything else in a replica, or in its image."""
    BUILD = "build"
    """The build of an image."""


@dataclass(frozen=True)
class Row:
    """Signs of one cause, what it means, and what to do."""

    reason: str
    """CamelCase, as the reason of a condition."""
    subject: Subject
    sign: str
    """What to look for, as users see it: part of a line, or an exit code."""
    meaning: str
    """Of the sign, as part of a sentence."""
    remedy: str
    """What to do, as part of a sentence."""
    pattern: re.Pattern[str] | None = None
    """Found in a line of a log, of a termination message or of an event. None: see `exit_codes`,
    or the line has to be compared with what was requested."""
    quote: re.Pattern[str] | None = None
    """Of the line that says most; None for the one with the pattern."""
    exit_codes: frozenset[int] = field(default_factory=frozenset)
    """Exit codes that have this cause whatever the log contains."""
    is_survived: bool = False
    """Whether a llama-server goes on after it: without its accelerator, or with the next request.
    It is no reason of an end that comes later."""
    details: str = ""
    """For the documents, in Markdown: what the remedy refers to."""


def line_with(pattern: str) -> re.Pattern[str]:
    """Return a pattern that matches in any case. It must not contain nested repetitions."""
    return re.compile(pattern, re.IGNORECASE)
