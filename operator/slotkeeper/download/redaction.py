"""Removal of credentials from logs and termination messages.

No message contains a credential by itself. But a host may send back what it was sent, for example
as the name of a file, which a message then quotes.
"""

import logging
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

Value = TypeVar("Value")

REDACTED = "[redacted]"
MIN_CHARACTERS = 8
"""Of a credential: a shorter one would be found in other words too."""


class Redaction:
    """Replaces credentials, also where they are encoded as in headers and URLs."""

    def __init__(self, files: Iterable[Path]) -> None:
        forms = {form for file in files for form in _forms(_read(file))}
        # The longest first: a password is a part of its credential.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without credentials."""
        for form in self._forms:
            text = text.replace(form, REDACTED)
        return text

    def of_texts(self, values: Mapping[str, Value]) -> dict[str, Value | str]:
        """Return the values, with texts without credentials."""
        return {
            name: self(value) if isinstance(value, str) else value for name, value in values.items()
        }

    @contextmanager
    def of_logs(self) -> Iterator[None]:
        """Remove credentials from what is logged."""
        handlers = logging.getLogger().handlers[:]
        for handler in handlers:
            handler.addFilter(self._redact_record)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(self._redact_record)

    def _redact_record(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self(record.getMessage()), ()
        return True


def _forms(text: str) -> Iterator[str]:
    # Of USER:PASSWORD, the password too.
    for secret in {text, text.partition(":")[2]}:
        if len(secret) >= MIN_CHARACTERS:
            yield from (secret, quote(secret, safe=""), quote(secret), ascii(secret)[1:-1])
            yield b64encode(secret.encode()).decode()


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""  # is reported where it is used
