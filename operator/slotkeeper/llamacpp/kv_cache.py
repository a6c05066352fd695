"""Data types of llama.cpp's KV cache."""

BLOCKS = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Numbers in a block, and its bytes."""

BITS_PER_VALUE = {kind: 8 * size / numbers for kind, (numbers, size) in BLOCKS.items()}
"""Bits per number, including its share of the block's scale."""

_VALUES_OF_8B = 2 * 32 * 8 * 128
"""Numbers of one token in the cache of an 8B model: keys and values of 32 layers, with 8 heads of
128 numbers."""


def token_bytes_of_8b(kv_cache_type: str) -> float:
    """Return the size of one token in the KV cache of an 8B model: 128 KiB with f16.

    For estimates where the model is not known, because 8B is a usual size.
    """
    return _VALUES_OF_8B * BITS_PER_VALUE[kv_cache_type] / 8
