"""Which GPU has which layer, as llama.cpp assigns them.

The first layers remain on the CPU if not all are on GPUs, and the output counts as the layer after
the last one. In proportion to the GPUs' shares, each gets consecutive layers.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.load import Gpus


def assign(layers: int, gpus: Gpus) -> list[int | None]:
    """Return the index of the GPU of each layer and, last, of the output; None for the CPU. Raises
    UnplannableError."""
    total = layers + 1
    used = min(gpus.layers, total) if gpus.memory else 0
    points = _points(gpus) if used else []
    on_cpu: list[int | None] = [None] * (total - used)
    return on_cpu + [_gpu(points, number / used) for number in range(used)]


def shares(gpus: Gpus) -> Sequence[float]:
    """Return the proportion of each GPU; their sum is 1. Raises UnplannableError."""
    parts: Sequence[float] = gpus.shares or gpus.memory
    if len(parts) != len(gpus.memory):
        raise UnplannableError(f"tensorSplit has {len(parts)} shares for {len(gpus.memory)} GPUs")
    if gpus.split_mode == "none":
        parts = [1.0, *[0.0] * (len(gpus.memory) - 1)]
    total = sum(parts)
    if total <= 0:
        raise UnplannableError("no GPU has a share of the model above 0")
    return [part / total for part in parts]


def _points(gpus: Gpus) -> list[float]:
    return list(accumulate(shares(gpus)))


def _gpu(points: Sequence[float], position: float) -> int:
    return min(bisect_right(points, position), len(points) - 1)
