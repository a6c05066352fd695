"""The largest number of slots, context, and number of layers with which a model fits."""

from collections.abc import Callable
from dataclasses import replace

from slotkeeper.llamacpp.memory.load import CONTEXT_STEP, MAX_SLOTS, Load
from slotkeeper.llamacpp.memory.plan import Parts, plan

MAX_AUTOMATIC_CONTEXT = 1_048_576
"""Tokens, for a model whose header states no context."""


def fits(parts: Parts, load: Load) -> bool:
    """Whether the GPUs have enough memory. Raises UnplannableError."""
    return plan(parts, load).fits(load.gpus)


def most_slots(parts: Parts, load: Load) -> int:
    """Return the largest number of slots that fits, with the load's context; 0 if none does."""
    return _largest(MAX_SLOTS, lambda slots: fits(parts, replace(load, slots=slots)))


def most_context(parts: Parts, load: Load) -> int:
    """Return the largest context of a slot that fits, with the load's slots; 0 if none does.

    It is a multiple of 256 tokens, and at most what the model was trained with.
    """
    trained = parts.model.trained_context or MAX_AUTOMATIC_CONTEXT
    steps = _largest(
        max(trained // CONTEXT_STEP, 1),
        lambda number: fits(parts, load.with_context(number * CONTEXT_STEP)),
    )
    return min(steps * CONTEXT_STEP, trained)


def most_layers(parts: Parts, load: Load) -> int:
    """Return the largest number of layers that fit on the GPUs, of which the output is one; 0 if
    none does."""

    def holds(layers: int) -> bool:
        return fits(parts, replace(load, gpus=replace(load.gpus, layers=layers)))

    # Only without all of them does a GPU need space for copies of weights in main memory.
    every = len(parts.model.layers) + 1
    return every if holds(every) else _largest(every - 1, holds)


def _largest(maximum: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to `maximum` for which it holds, if it holds for all
    smaller ones; 0 if it holds for none."""
    low, high = 0, maximum
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
