"""Small GGUF files."""

import struct
from collections.abc import Mapping

F32 = 0
ALIGNMENT = 32


def gguf(
    tensors: Mapping[str, int], *, split_count: int | None = None, alignment: int | None = None
) -> bytes:
    """Return a file with one-dimensional tensors of these numbers of 32-bit zeros."""
    pairs = b""
    if split_count is not None:
        pairs += _pair("split.count", 2, struct.pack("<H", split_count))
    if alignment is not None:
        pairs += _pair("general.alignment", 4, struct.pack("<I", alignment))
    count = (split_count is not None) + (alignment is not None)
    aligned = alignment or ALIGNMENT
    descriptions = b""
    data = b""
    for name, elements in tensors.items():
        data += bytes(-len(data) % aligned)
        descriptions += _string(name) + struct.pack("<IQIQ", 1, elements, F32, len(data))
        data += bytes(4 * elements)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs + descriptions
    return header + bytes(-len(header) % aligned) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
