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
    """One slot. Of the numbers, 0 is unknown too."""

    id: int
    is_processing: bool
    n_ctx: int = 0
    """Its context in tokens."""
    task: int | None = None
    """The number of its current task, else of its last one."""
    prompt_tokens: int = 0
    """Tokens that it holds, of the last prompt and of the response to it."""
    processed: int = 0
    """Tokens of the prompt that were computed. Some builds report 0 after the response."""
    cached: int = 0
    """Those that were found in the cache; likewise."""
    decoded: int = 0
    """Tokens of the response; likewise."""
    speculative: bool = True
    """Whether it decodes speculatively, if it should; True if it is not known."""


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
    if not isinstance(number, int) or isinstance(number, bool):
        raise SlotsParseError("a slot has no integer id")
    if not isinstance(busy, bool):
        raise SlotsParseError(f"slot {number} has no boolean is_processing")
    next_token = item.get("next_token")
    first = next_token[0] if isinstance(next_token, list) and next_token else next_token
    return Slot(
        number,
        busy,
        _count(item.get("n_ctx")) or 0,
        _count(item.get("id_task")),
        _count(item.get("n_prompt_tokens")) or 0,
        _count(item.get("n_prompt_tokens_processed")) or 0,
        _count(item.get("n_prompt_tokens_cache")) or 0,
        (_count(first.get("n_decoded")) or 0) if isinstance(first, dict) else 0,
        item.get("speculative") is not False,
    )


def _count(value: object) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if known and isinstance(value, int) else None
