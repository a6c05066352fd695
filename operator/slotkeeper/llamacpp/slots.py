"""What a llama-server's `GET /slots` says."""

import json
from collections.abc import Iterable
from dataclasses import dataclass


class SlotsParseError(ValueError):
    """The answer is no list of slots."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: its number, whether it works on a request, its context in tokens (0: unsaid)."""

    id: int
    is_processing: bool
    n_ctx: int = 0


def parse_slots(body: bytes | str) -> tuple[Slot, ...]:
    """The slots in the body of `GET /slots`, which must be at least one. Raises NotSlots.

    Only `id` and `is_processing` must be there, with ids that differ; what else a version of
    llama-server adds or leaves out does not matter.
    """
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SlotsParseError(f"no JSON: {error}") from None
    if not isinstance(tree, list) or not tree:
        raise SlotsParseError("no list of slots")
    slots = tuple(_slot(item) for item in tree)
    if len({slot.id for slot in slots}) != len(slots):
        raise SlotsParseError("two slots with one id")
    return slots


def processing(slots: Iterable[Slot]) -> int:
    """How many of `slots` work on a request."""
    return sum(slot.is_processing for slot in slots)


def _slot(item: object) -> Slot:
    if not isinstance(item, dict):
        raise SlotsParseError("a slot that is no object")
    number = item.get("id")
    busy = item.get("is_processing")
    context = item.get("n_ctx", 0)
    if not isinstance(number, int) or isinstance(number, bool):
        raise SlotsParseError("a slot without an id")
    if not isinstance(busy, bool):
        raise SlotsParseError(f"slot {number} does not say whether it is processing")
    said = isinstance(context, int) and not isinstance(context, bool) and context > 0
    return Slot(number, busy, context if said else 0)
