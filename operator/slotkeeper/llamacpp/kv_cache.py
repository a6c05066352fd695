"""Data types of llama.cpp's KV cache."""

BITS_PER_VALUE = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
"""Bits per number, including its share of the block's scale."""

_VALUES_OF_8B = 2 * 32 * 8 * 128
"""Numbers of one token in the cache of an 8B model: keys and values of 32 layers, with 8 heads of
128 numbers."""


def token_bytes_of_8b(kv_cache_type: str) -> float:
    """Return the size of one token in the KV cache of an 8B model: 128 KiB with f16.

    For estimates where the model is not known, because 8B is a usual size.
    """
    return _VALUES_OF_8B * BITS_PER_VALUE[kv_cache_type] / 8
