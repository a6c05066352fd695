"""What a new replica computes before it gets requests, and where: pure decisions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

CHUNK_SECONDS = 0.5
"""For which one request of a beginning should compute: a request that arrives meanwhile waits no
longer, since llama-server ends nothing within a batch."""
FIRST_CHUNK_TOKENS = 64
"""While the rate is not known."""
MIN_CHUNK_TOKENS = 16
"""Smaller batches compute far fewer tokens in a second. On a slow CPU even these take seconds."""
MAX_CHUNK_TOKENS = 2048
"""llama-server's default for --batch-size."""
MIN_TOKENS = 16
"""A shorter beginning takes no time to compute."""

_COVERED = 8
"""Tokens that a beginning may have beyond another one that is computed already."""

Tokens = tuple[int, ...]


def common_beginning(first: Sequence[int], second: Sequence[int]) -> Tokens:
    """Return the tokens with which both prompts begin."""
    length = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return tuple(first[:length])


def next_chunk(done: int, total: int, tokens_per_second: float | None) -> int:
    """Return how many tokens to have computed after the next request, of `total`.

    None: the rate is not known yet.
    """
    if tokens_per_second is None:
        return min(done + FIRST_CHUNK_TOKENS, total)
    size = min(max(MIN_CHUNK_TOKENS, int(tokens_per_second * CHUNK_SECONDS)), MAX_CHUNK_TOKENS)
    return min(done + size, total)


class Action(Enum):
    """What becomes of a beginning."""

    COMPUTE = auto()
    SKIP = auto()
    """It is computed already, or too short."""
    STOP = auto()
    """It would push out an earlier, more frequent one, as all further ones would."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a beginning is computed."""

    action: Action
    slot: int | None = None
    """None: llama-server chooses, and moves what the slot held to its prompt cache."""


@dataclass(frozen=True, slots=True)
class Primed:
    """A beginning that is computed, and its slot, unless llama-server has chosen it."""

    tokens: Tokens
    slot: int | None


def place(
    tokens: Tokens, primed: Sequence[Primed], slots: Iterable[int], *, has_cache: bool
) -> Placement:
    """Return where to compute a beginning.

    | the beginning                                  | is computed                            |
    |---|---|
    | is short, or begins one that is computed       | not                                    |
    | continues one that is computed in a slot       | in its slot                            |
    | else, with an unused slot                      | there                                  |
    | else, if the replica has a prompt cache in RAM | where llama-server chooses             |
    | else                                           | not, nor are all after it              |
    """
    if len(tokens) < MIN_TOKENS:
        return Placement(Action.SKIP)
    common = [(len(common_beginning(tokens, each.tokens)), each) for each in primed]
    if any(length + _COVERED >= len(tokens) for length, _ in common):
        return Placement(Action.SKIP)
    for length, each in common:
        if each.slot is not None and length + _COVERED >= len(each.tokens):
            return Placement(Action.COMPUTE, each.slot)
    used = {each.slot for each in primed}
    unused = next((slot for slot in slots if slot not in used), None)
    if unused is not None:
        return Placement(Action.COMPUTE, unused)
    return Placement(Action.COMPUTE if has_cache else Action.STOP)


def replaced(primed: Sequence[Primed], by: Primed) -> list[Primed]:
    """Return what is computed once `by` is: it replaces what its slot held."""
    return [each for each in primed if by.slot is None or each.slot != by.slot] + [by]
