"""What a GGUF file says of itself in its header.

Layout (little-endian): "GGUF", version u32, tensors u64, pairs u64, and then the pairs: a key, the
type of its value as u32, the value. A string is its length as u64 and that many bytes; an array is
the type of its items as u32, their number as u64, and they.

The header is somebody else's: what is read is bounded by the bytes that are given, and whatever is
out of order ends the reading with what is known by then.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_BYTES = 32 * 1024**2
"""Bytes at a file's begin in which its header ends: the largest vocabularies take half of it."""

VERSIONS = (2, 3)

LONGEST_TEXT = 128
"""Characters of a value that is passed on."""

MOST_PAIRS = 4096

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING = 8
_ARRAY = 9
_U32 = _SCALARS[4]
_U64 = _SCALARS[10]

_FILE_TYPES = """
F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K
IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - -
TQ1_0 TQ2_0 MXFP4_MOE NVFP4 Q1_0
"""

QUANTISATIONS = {number: name for number, name in enumerate(_FILE_TYPES.split()) if name != "-"}
"""llama.cpp's numbers for what most of a file's tensors are."""


@dataclass(frozen=True)
class GgufMetadata:
    """What a model says of itself; None where it does not."""

    architecture: str | None = None
    """Such as llama or qwen2."""
    context_length: int | None = None
    """Tokens that it was trained for."""
    layers: int | None = None
    quantization: str | None = None
    """Such as Q4_K_M."""
    name: str | None = None
    size_label: str | None = None
    """How large it is, in words such as 7B."""


def read_metadata(head: bytes) -> GgufMetadata:
    """Read the header at the begin of a file. Never raises: what cannot be read is not known."""
    values = _values(head)
    architecture = _text(values.get("general.architecture"))
    file_type = _number(values.get("general.file_type"))
    return GgufMetadata(
        architecture=architecture,
        context_length=_number(values.get(f"{architecture}.context_length")) or None,
        layers=_number(values.get(f"{architecture}.block_count")) or None,
        quantization=None if file_type is None else QUANTISATIONS.get(file_type),
        name=_text(values.get("general.name")),
        size_label=_text(values.get("general.size_label")),
    )


Value = int | float | str

_WANTED = re.compile(
    r"general\.(?:architecture|file_type|name|size_label)|[^.]+\.(?:context_length|block_count)"
)


def _values(head: bytes) -> dict[str, Value]:
    values: dict[str, Value] = {}
    try:
        for key, value in _Header(head).pairs():
            if value is not None:
                values.setdefault(key, value)
    except _Unreadable:
        pass
    return values


class _Unreadable(Exception):  # noqa: N818 (a way out, and no error of ours)
    """The header ends, or is no header, from here on."""


class _Header:
    """A place in a header, which moves on with all that is read."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._at = 0

    def pairs(self) -> Iterator[tuple[str, Value | None]]:
        """The keys that are wanted, with their values; None for one that is no plain value."""
        if self._bytes(4) != b"GGUF" or self._scalar(_U32) not in VERSIONS:
            raise _Unreadable
        _tensors = self._scalar(_U64)
        pairs = self._scalar(_U64)
        for _ in range(min(int(pairs), MOST_PAIRS)):
            key = self._string()
            kind = int(self._scalar(_U32))
            if key is not None and _WANTED.fullmatch(key):
                yield key, self._value(kind)
            else:
                self._value(kind)

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._pass_array()
            return None
        if kind not in _SCALARS:
            raise _Unreadable
        return self._scalar(_SCALARS[kind])

    def _string(self) -> str | None:
        """A string; None for one that is too long to be of interest, or no text."""
        size = int(self._scalar(_U64))
        if size > 4 * LONGEST_TEXT:
            self._pass(size)
            return None
        try:
            return self._bytes(size).decode()
        except UnicodeDecodeError:
            return None

    def _pass_array(self) -> None:
        kind = int(self._scalar(_U32))
        count = int(self._scalar(_U64))
        if kind in _SCALARS:
            self._pass(count * _SCALARS[kind].size)
        elif kind == _STRING:
            self._pass_strings(count)
        else:
            # Arrays of arrays, which llama.cpp does not read either.
            raise _Unreadable

    def _pass_strings(self, count: int) -> None:
        # Vocabularies: hundreds of thousands, so that each costs little. Each takes eight bytes at
        # least, which bounds them however many there are said to be.
        head = self._head
        at = self._at
        last = len(self._head) - _U64.size
        read = _U64.unpack_from
        for _ in range(min(count, len(head))):
            if at > last:
                raise _Unreadable
            at += _U64.size + read(head, at)[0]
        if at > len(head) or count > len(head):
            raise _Unreadable
        self._at = at

    def _scalar(self, kind: struct.Struct) -> int | float:
        number: int | float = kind.unpack(self._bytes(kind.size))[0]
        return number

    def _bytes(self, size: int) -> bytes:
        at = self._at
        self._pass(size)
        return self._head[at : self._at]

    def _pass(self, size: int) -> None:
        if size > len(self._head) - self._at:
            raise _Unreadable
        self._at += size


def _text(value: Value | None) -> str | None:
    if not isinstance(value, str) or not value.isprintable():
        return None
    return value if 0 < len(value) <= LONGEST_TEXT else None


def _number(value: Value | None) -> int | None:
    """A count of something: whole, and not beyond what 32 bits hold."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**31 else None
