"""Reads the dimensions of a model from the headers of its files.

Headers are untrusted: each number is bounded, and what contradicts itself is an UnplannableError.
Sizes come from the tensors' shapes where there is a choice, because a tensor cannot have another
shape than llama.cpp expects, whatever a key states.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from slotkeeper.llamacpp.gguf import MAX_TENSORS, Header, Tensor, Unreadable, Value
from slotkeeper.llamacpp.gguf_layout import BLOCKS
from slotkeeper.llamacpp.memory.architectures import OTHER_MEMORY, WITHOUT_CACHE
from slotkeeper.llamacpp.memory.dimensions import (
    MAX_BYTES,
    MAX_LAYERS,
    MAX_NUMBER,
    Dimensions,
    Layer,
    UnplannableError,
)
from slotkeeper.llamacpp.memory.keys import Keys
from slotkeeper.llamacpp.memory.layers import layer

_KEYS = re.compile(r"general\.(?:architecture|type)|split\.count|(?!tokenizer\.)[^.]+\..+")

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""It is printed, and may come from anyone: without control characters."""

_LAYER = re.compile(r"blk\.(\d{1,4})\.(.+)")

_OUTPUT = re.compile(r"output|cls|dense_|token_embd_norm$")
"""Names of tensors after the layers. LFM2 calls its last norm token_embd_norm."""

_WITH_FIRST_LAYER = re.compile(r"per_layer_(model_proj|proj_norm)\.weight")
"""Names of tensors that are where the first layer is."""

_NORMS = frozenset({"ffn_norm", "post_attention_norm", "attn_output_norm"})
"""Tensors of the norm between the two parts of a layer."""


@dataclass(frozen=True)
class FileHeader:
    """The header of one file of a model."""

    values: Mapping[str, Value]
    tensors: Sequence[Tensor]
    files: int = field(default=1)
    """Number of files of the model."""


def read_header(head: bytes | BinaryIO) -> FileHeader:
    """Parse the beginning of a file. Raises UnplannableError, and OSError of the file."""
    header = Header(head, _KEYS)
    try:
        values = {key: value for key, value in header.pairs() if value is not None}
        tensors = list(header.tensors())
    except Unreadable:
        raise UnplannableError("its GGUF header is truncated or malformed") from None
    files = values.get("split.count", 1)
    return FileHeader(values, tensors, files if isinstance(files, int) and files > 0 else 1)


def read_dimensions(headers: Sequence[FileHeader]) -> Dimensions:
    """Return the dimensions of the model of these files. Raises UnplannableError."""
    first = headers[0]
    if len(headers) != first.files:
        raise UnplannableError(
            f"it is one of {first.files} files of a split model: name the first one, which ends "
            f"with -00001-of-{first.files:05d}.gguf"
        )
    tensors = [tensor for header in headers for tensor in header.tensors]
    if len(tensors) > MAX_TENSORS:
        raise UnplannableError(f"it has more than {MAX_TENSORS} tensors")
    architecture = first.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise UnplannableError("its GGUF header has no general.architecture")
    if not _ARCHITECTURE.fullmatch(architecture):
        raise UnplannableError(f"general.architecture in its GGUF header is {architecture!r}")
    if architecture in OTHER_MEMORY:
        raise UnplannableError(f"the memory of the architecture {architecture!r} is not planned")
    sizes = _sizes(tensors)
    keys = Keys(architecture, first.values)
    count = keys.number("block_count", 1, MAX_LAYERS)
    used = count - keys.number("nextn_predict_layers", 0, count, default=0)
    blocks = _blocks(tensors, count)
    layers = tuple(
        layer(keys, number, block, {name: sizes[id(tensor)] for name, tensor in block.items()})
        # Layers that predict further tokens are not loaded.
        if number < used
        else Layer(0)
        for number, block in enumerate(blocks)
    )
    ends = {each.name: sizes[id(each)] for each in tensors if not _LAYER.fullmatch(each.name)}
    return _with_ends(keys, layers, ends, tensors)


def _with_ends(
    keys: Keys, layers: tuple[Layer, ...], ends: Mapping[str, int], tensors: Sequence[Tensor]
) -> Dimensions:
    table = next((each for each in tensors if each.name == "token_embd.weight"), None)
    if table is None or len(table.shape) < 2:
        raise UnplannableError("it has no tensor token_embd.weight")
    size = ends[table.name]
    output = sum(bytes_ for name, bytes_ in ends.items() if _OUTPUT.match(name.split(".")[0]))
    if first := sum(bytes_ for name, bytes_ in ends.items() if _WITH_FIRST_LAYER.fullmatch(name)):
        layers = (replace(layers[0], weights=layers[0].weights + first), *layers[1:])
    return Dimensions(
        architecture=keys.architecture,
        layers=layers,
        embedding=table.shape[0],
        vocabulary=table.shape[1],
        trained_context=keys.number("context_length", 0, MAX_NUMBER, default=0),
        table=size,
        tied="output.weight" not in ends and keys.architecture not in WITHOUT_CACHE,
        input_weights=sum(ends.values()) - size - output - first,
        output_weights=output,
        layer_inputs=len(layers) * keys.size("embedding_length_per_layer_input"),
        caches=keys.architecture not in WITHOUT_CACHE,
        parallel=_NORMS.isdisjoint(_parts(tensors)),
    )


def _parts(tensors: Sequence[Tensor]) -> set[str]:
    names = (_LAYER.fullmatch(each.name) for each in tensors)
    return {match[2].split(".")[0] for match in names if match}


def _sizes(tensors: Sequence[Tensor]) -> dict[int, int]:
    sizes = {}
    for tensor in tensors:
        if not tensor.shape:
            raise UnplannableError("a tensor has no dimensions")
        if any(not 0 < number <= MAX_NUMBER for number in tensor.shape):
            raise UnplannableError("a tensor has a dimension of 0 or above 2^31")
        if tensor.type not in BLOCKS:
            raise UnplannableError(f"a tensor has the unknown data type {tensor.type}")
        elements, size = BLOCKS[tensor.type]
        sizes[id(tensor)] = tensor.elements // elements * size
    if sum(sizes.values()) > MAX_BYTES:
        raise UnplannableError("its tensors have more than a petabyte")
    return sizes


def _blocks(tensors: Sequence[Tensor], count: int) -> list[dict[str, Tensor]]:
    blocks: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for number, name, tensor in _numbered(tensors):
        if number >= count:
            raise UnplannableError(f"it has a tensor of layer {number}, and {count} layers")
        blocks[number][name] = tensor
    return blocks


def _numbered(tensors: Sequence[Tensor]) -> Iterator[tuple[int, str, Tensor]]:
    for tensor in tensors:
        if match := _LAYER.fullmatch(tensor.name):
            yield int(match[1]), match[2], tensor
