"""Small GGUF files."""

import struct
from collections.abc import Mapping, Sequence

F32 = 0
ALIGNMENT = 32


def gguf(
    tensors: Mapping[str, int],
    *,
    split_no: int | None = None,
    split_count: int | None = None,
    model_tensors: int | None = None,
    alignment: int | None = None,
    tokens: Sequence[str] = (),
    tokenizer: str | None = None,
    kind: str | None = None,
    architecture: str | None = None,
) -> bytes:
    """Return a file with one-dimensional tensors of these numbers of 32-bit zeros."""
    pairs = [
        *_optional_text("general.type", kind),
        *_optional_text("general.architecture", architecture),
        *_optional_text("tokenizer.ggml.model", tokenizer),
        *_optional("split.no", 2, "<H", split_no),
        *_optional("split.count", 2, "<H", split_count),
        *_optional("split.tensors.count", 5, "<i", model_tensors),
        *_optional("general.alignment", 4, "<I", alignment),
        *([_tokens(tokens)] if tokens else []),
    ]
    aligned = alignment or ALIGNMENT
    descriptions = b""
    data = b""
    for name, elements in tensors.items():
        data += bytes(-len(data) % aligned)
        descriptions += _string(name) + struct.pack("<IQIQ", 1, elements, F32, len(data))
        data += bytes(4 * elements)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    header += descriptions
    return header + bytes(-len(header) % aligned) + data


def split_gguf(*files: Mapping[str, int]) -> Sequence[bytes]:
    """Return the files of one split model, with these tensors."""
    total = sum(map(len, files))
    return [
        gguf(tensors, split_no=number, split_count=len(files), model_tensors=total)
        for number, tensors in enumerate(files)
    ]


def _optional(key: str, kind: int, layout: str, value: int | None) -> Sequence[bytes]:
    return [] if value is None else [_pair(key, kind, struct.pack(layout, value))]


def _optional_text(key: str, value: str | None) -> Sequence[bytes]:
    return [] if value is None else [_pair(key, 8, _string(value))]


def _tokens(tokens: Sequence[str]) -> bytes:
    items = b"".join(map(_string, tokens))
    return _pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(tokens)) + items)


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
