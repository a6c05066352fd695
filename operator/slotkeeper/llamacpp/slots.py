"""Parser of the response of llama-server's `GET /slots`."""

from collections.abc import Iterable
from dataclasses import dataclass

from slotkeeper.bounded_json import MAX_DEPTH, parse

MAX_BYTES = 8 * 2**20
"""Of the response. A slot has about 3 KiB, more with the grammar of its request."""

MAX_SLOTS = 4096
"""In one response: sixteen times as many as the API allows."""

_MAX_DEPTH = 2 * MAX_DEPTH
"""A slot may contain parameters of its request."""


class SlotsParseError(ValueError):
    """The response is not a list of slots."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: its number, whether it processes a request, its context in tokens (0: unknown)."""

    id: int
    is_processing: bool
    n_ctx: int = 0


def parse_slots(body: bytes | str) -> tuple[Slot, ...]:
    """Parse the body of the response, which must have at least one slot.

    Only `id`, which must be unique, and `is_processing` are required: other fields differ between
    versions of llama-server. Raises SlotsParseError.
    """
    try:
        tree = parse(body, max_bytes=MAX_BYTES, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise SlotsParseError(f"invalid JSON: {error}") from None
    if not isinstance(tree, list) or not tree:
        raise SlotsParseError("not a list of slots")
    if len(tree) > MAX_SLOTS:
        raise SlotsParseError(f"{len(tree)} slots, at most {MAX_SLOTS}")
    slots = tuple(_slot(item) for item in tree)
    if len({slot.id for slot in slots}) != len(slots):
        raise SlotsParseError("two slots with the same id")
    return slots


def processing(slots: Iterable[Slot]) -> int:
    """Return the number of slots that process a request."""
    return sum(slot.is_processing for slot in slots)


def _slot(item: object) -> Slot:
    if not isinstance(item, dict):
        raise SlotsParseError("a slot is not an object")
    number = item.get("id")
    busy = item.get("is_processing")
    context = item.get("n_ctx", 0)
    if not isinstance(number, int) or isinstance(number, bool):
        raise SlotsParseError("a slot has no integer id")
    if not isinstance(busy, bool):
        raise SlotsParseError(f"slot {number} has no boolean is_processing")
    known = isinstance(context, int) and not isinstance(context, bool) and 0 < context < 2**31
    return Slot(number, busy, context if known else 0)
