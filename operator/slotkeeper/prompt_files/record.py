"""What the agent records of a prompt file, as JSON beside it."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from slotkeeper.bounded_json import MAX_INTEGER, MIN_INTEGER, parse

MAX_RECORD_BYTES = 4096

MAX_FILE_BYTES = 2**50
MAX_TOKENS = 2**31
MAX_PREFIXES = 64

_COMPATIBLE = re.compile("[0-9a-f]{1,64}")
_MODEL = re.compile("[0-9a-f]{0,64}")


@dataclass(frozen=True)
class Content:
    """What the balancer states of a file."""

    bytes: int
    tokens: int
    prefixes: tuple[int, ...]
    """Hashes of the beginnings of its prompt."""
    compatible: str
    """Names what can restore it. Of the balancer, and only compared."""

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self | None:
        """Parse the fields of this class; None if one is malformed."""
        prefixes = tree.get("prefixes")
        compatible = tree.get("compatible")
        if (
            not is_integer(tree.get("bytes"), 1, MAX_FILE_BYTES)
            or not is_integer(tree.get("tokens"), 1, MAX_TOKENS)
            or not isinstance(prefixes, list)
            or len(prefixes) > MAX_PREFIXES
            or not all(is_integer(each, MIN_INTEGER, MAX_INTEGER) for each in prefixes)
            or not isinstance(compatible, str)
            or not _COMPATIBLE.fullmatch(compatible)
        ):
            return None
        return cls(tree["bytes"], tree["tokens"], tuple(prefixes), compatible)


@dataclass(frozen=True)
class Record:
    """One file that is complete."""

    content: Content
    model: str
    """Fingerprint of the model's files that llama-server had, empty without `--model`."""
    saved_at: int
    """Unix time."""

    def to_json(self) -> bytes:
        """Return the record's file."""
        tree = asdict(self.content) | {"model": self.model, "savedAt": self.saved_at}
        return json.dumps(tree, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self | None:
        """Parse the record's file; None if it is malformed."""
        try:
            tree = parse(text, max_bytes=MAX_RECORD_BYTES, max_depth=2)
        except ValueError:
            return None
        if not isinstance(tree, dict):
            return None
        content = Content.from_tree(tree)
        model, saved_at = tree.get("model"), tree.get("savedAt")
        if content is None or not isinstance(model, str) or not _MODEL.fullmatch(model):
            return None
        if not isinstance(saved_at, int) or not is_integer(saved_at, 0, MAX_INTEGER):
            return None
        return cls(content, model, saved_at)


def is_integer(value: object, least: int, most: int) -> bool:
    """Return whether a value of a JSON tree is a whole number in a range."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
