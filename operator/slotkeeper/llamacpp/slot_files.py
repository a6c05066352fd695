"""llama-server's actions on the file of a slot: `POST /slots/ID?action=save` and `restore`.

Source: tools/server/server-context.cpp of build 11434.
"""

import json
from typing import Any, NamedTuple

from slotkeeper.bounded_json import parse

MAX_BYTES = 64 * 1024
"""Of a response. An error has the message of an exception."""

_MAX_COUNT = 2**53


class SlotFile(NamedTuple):
    """A file that llama-server has written or read."""

    tokens: int
    bytes: int


def path(slot: int, action: str) -> str:
    """Return the path of `save` or `restore`."""
    return f"/slots/{slot}?action={action}"


def body(name: str) -> bytes:
    """Return the body of either: `name` of a file in llama-server's --slot-save-path."""
    return json.dumps({"filename": name}).encode()


def parse_saved(response: bytes) -> SlotFile:
    """Parse the response of `save`. Raises ValueError."""
    return _parse(response, "n_saved", "n_written")


def parse_restored(response: bytes) -> SlotFile:
    """Parse the response of `restore`. Raises ValueError."""
    return _parse(response, "n_restored", "n_read")


def _parse(response: bytes, tokens: str, size: str) -> SlotFile:
    tree = parse(response, max_bytes=MAX_BYTES)
    if not isinstance(tree, dict):
        raise ValueError("not an object")
    return SlotFile(_count(tree, tokens), _count(tree, size))


def _count(tree: dict[str, Any], name: str) -> int:
    value = tree.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{name} is not a count")
    return value
