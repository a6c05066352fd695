"""Parser of the metadata in the header of a GGUF file.

Layout (little-endian): "GGUF", version u32, tensor count u64, pair count u64, and then the pairs: a
key, the type of the value as u32, the value. A string is its length as u64 and that many bytes; an
array is the type of its items as u32, their number as u64, and the items. Then the tensors: a name,
the number of dimensions as u32, each dimension as u64, the data type as u32, the offset as u64.

The header is untrusted input: the work is bounded by the size of the input, the memory by that of a
window, and malformed data ends the parsing; the metadata up to there is returned.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from os import SEEK_END
from typing import BinaryIO

HEAD_BYTES = 32 * 1024**2
"""Size of the beginning of a file that contains its header: the largest vocabularies take half."""

WINDOW_BYTES = 256 * 1024
"""How much of a header is in memory at a time: more than any value that is read."""

VERSIONS = (2, 3)

MAX_CHARACTERS = 128
"""Of a text value; longer ones are dropped."""

MAX_PAIRS = 4096
MAX_TENSORS = 65_536
MAX_DIMENSIONS = 4

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

QUANTIZATIONS = {number: name for number, name in enumerate(_FILE_TYPES.split()) if name != "-"}
"""llama.cpp's file types: the quantization of most tensors."""


@dataclass(frozen=True)
class GgufMetadata:
    """Metadata of a model; None if missing or invalid."""

    architecture: str | None = None
    """Such as llama or qwen2."""
    context_length: int | None = None
    """Tokens that the model was trained with."""
    layers: int | None = None
    quantization: str | None = None
    """Such as Q4_K_M."""
    name: str | None = None
    size_label: str | None = None
    """Parameter count as text, such as 7B."""


def read_metadata(head: bytes | BinaryIO) -> GgufMetadata:
    """Parse the header at the beginning of a file. Raises only OSError of the file."""
    values = _values(head)
    architecture = _text(values.get("general.architecture"))
    file_type = _number(values.get("general.file_type"))
    return GgufMetadata(
        architecture=architecture,
        context_length=_number(values.get(f"{architecture}.context_length")) or None,
        layers=_number(values.get(f"{architecture}.block_count")) or None,
        quantization=None if file_type is None else QUANTIZATIONS.get(file_type),
        name=_text(values.get("general.name")),
        size_label=_text(values.get("general.size_label")),
    )


MAX_ITEMS = 1024
"""Of an array of numbers; longer ones are dropped. llama.cpp has at most 512 layers."""

Value = int | float | str | tuple[int | float, ...]

_SELECTED_KEYS = re.compile(
    r"general\.(?:alignment|architecture|file_type|name|size_label|type)|split\.(?:no|count|tensors\.count)"
    r"|[^.]+\.(?:context_length|block_count)|tokenizer\.ggml\.model"
)

TOKENS = "tokenizer.ggml.tokens"
"""Key of the vocabulary, of which the number of tokens is read."""


def _values(head: bytes | BinaryIO) -> dict[str, Value]:
    values: dict[str, Value] = {}
    try:
        for key, value in Header(head).pairs():
            if value is not None:
                values.setdefault(key, value)
    except Unreadable:
        pass
    return values


class Unreadable(Exception):  # noqa: N818 (control flow)
    """The header is truncated or malformed."""


class Truncated(Unreadable):
    """The header is longer than its file, or than HEAD_BYTES."""


@dataclass(frozen=True)
class Tensor:
    """The description of a tensor in the header."""

    type: int
    """Number of its data type in ggml."""
    elements: int
    offset: int
    """Bytes from the beginning of the data of all tensors."""
    name: str = ""
    """Empty if it is too long or not UTF-8."""
    shape: tuple[int, ...] = ()
    """Its dimensions in ggml's order: the first one is that of a row."""


class Header:
    """Cursor over a header: first its pairs, then its tensors."""

    def __init__(
        self, head: bytes | BinaryIO, selected_keys: re.Pattern[str] = _SELECTED_KEYS
    ) -> None:
        """`head` is a file, of which up to HEAD_BYTES are read, or its first bytes."""
        self._selected_keys = selected_keys
        self._file = BytesIO(head) if isinstance(head, bytes) else head
        self.size = min(self._file.seek(0, SEEK_END), HEAD_BYTES)
        """The number of bytes that can be read."""
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._tensors = 0

    @property
    def position(self) -> int:
        """The number of bytes that have been read."""
        return self._position

    @property
    def tensor_count(self) -> int:
        """The number of tensors in the file, once the pairs are read."""
        return self._tensors

    def pairs(self) -> Iterator[tuple[str, Value | None]]:
        """Yield the selected keys with their values; None for unsuitable strings, and for arrays
        that are long or not of numbers.

        The value of TOKENS is the number of tokens.
        """
        if self._bytes(4) != b"GGUF" or self._scalar(_U32) not in VERSIONS:
            raise Unreadable
        self._tensors = int(self._scalar(_U64))
        pairs = int(self._scalar(_U64))
        for _ in range(min(pairs, MAX_PAIRS)):
            key = self._string()
            kind = int(self._scalar(_U32))
            if key == TOKENS and kind == _ARRAY:
                yield key, self._skip_array()
            elif key is None or not self._selected_keys.fullmatch(key):
                self._value(kind)
            elif kind == _ARRAY:
                yield key, self._numbers()
            else:
                yield key, self._value(kind)
        if pairs > MAX_PAIRS:
            raise Unreadable

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors, after all pairs."""
        if self._tensors > MAX_TENSORS:
            raise Unreadable
        for _ in range(self._tensors):
            name = self._string() or ""
            dimensions = int(self._scalar(_U32))
            if dimensions > MAX_DIMENSIONS:
                raise Unreadable
            shape = tuple(int(self._scalar(_U64)) for _ in range(dimensions))
            kind = int(self._scalar(_U32))
            offset = int(self._scalar(_U64))
            yield Tensor(kind, prod(shape), offset, name, shape)

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        if kind not in _SCALARS:
            raise Unreadable
        return self._scalar(_SCALARS[kind])

    def _string(self) -> str | None:
        """Return a string; None if it is too long or not UTF-8."""
        size = int(self._scalar(_U64))
        # A character has up to four bytes.
        if size > 4 * MAX_CHARACTERS:
            self._skip(size)
            return None
        try:
            return self._bytes(size).decode()
        except UnicodeDecodeError:
            return None

    def _numbers(self) -> tuple[int | float, ...] | None:
        kind = int(self._scalar(_U32))
        count = int(self._scalar(_U64))
        if kind in _SCALARS and count <= MAX_ITEMS:
            return tuple(self._scalar(_SCALARS[kind]) for _ in range(count))
        self._skip_items(kind, count)
        return None

    def _skip_array(self) -> int:
        """Return the number of its items."""
        kind = int(self._scalar(_U32))
        count = int(self._scalar(_U64))
        self._skip_items(kind, count)
        return count

    def _skip_items(self, kind: int, count: int) -> None:
        if kind in _SCALARS:
            self._skip(count * _SCALARS[kind].size)
        elif kind == _STRING:
            self._skip_strings(count)
        else:
            # Arrays of arrays, which llama.cpp does not read either.
            raise Unreadable

    def _skip_strings(self, count: int) -> None:
        # A tight loop, because vocabularies have hundreds of thousands of strings. Each takes at
        # least eight bytes, which bounds the loop whatever count is.
        if count > self.size:
            raise Truncated
        read = _U64.unpack_from
        while count:
            self._load(_U64.size)
            window = self._window
            last = len(window) - _U64.size
            offset = 0
            while count and offset <= last:
                offset += _U64.size + read(window, offset)[0]
                count -= 1
            self._skip(offset)

    def _scalar(self, kind: struct.Struct) -> int | float:
        number: int | float = kind.unpack(self._bytes(kind.size))[0]
        return number

    def _bytes(self, size: int) -> bytes:
        if self._position + size > self._window_start + len(self._window):
            self._load(size)
        start = self._position - self._window_start
        self._position += size
        return self._window[start : start + size]

    def _load(self, size: int) -> None:
        """Move the window to the position; it has at least `size` bytes."""
        if size > self.size - self._position:
            raise Truncated
        self._file.seek(self._position)
        self._window = self._file.read(min(WINDOW_BYTES, self.size - self._position))
        self._window_start = self._position
        if len(self._window) < size:  # the file became shorter
            raise Truncated

    def _skip(self, size: int) -> None:
        if size > self.size - self._position:
            raise Truncated
        self._position += size


def _text(value: Value | None) -> str | None:
    if not isinstance(value, str) or not value.isprintable():
        return None
    return value if 0 < len(value) <= MAX_CHARACTERS else None


def _number(value: Value | None) -> int | None:
    """Return the value if it is an integer from 0 to 2^31 - 1; None otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**31 else None
