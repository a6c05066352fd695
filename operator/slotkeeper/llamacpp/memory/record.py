"""The sizes of a model's files as a short text: what memory depends on of their headers.

The container that reads the headers passes it to the operator in its termination message, of at
most 4096 bytes. As it is untrusted there, all is bounded when it is read.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from typing import Any

from slotkeeper.bounded_json import parse
from slotkeeper.llamacpp.memory.dimensions import (
    MAX_BYTES,
    MAX_LAYERS,
    Dimensions,
    Layer,
    UnplannableError,
)
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.projector import Projector

MAX_LENGTH = 3500
"""Characters of a record: a termination message has space for it, and for what is around it."""

VERSION = "2"
"""A record of any other version is not read: the model is inspected again."""

_MAX_JSON = 128 * 1024
"""Characters: 512 different layers of 20 numbers each have fewer."""

_MAX_ARCHITECTURE = 128
"""Characters."""

_NUMBERS = (
    "embedding",
    "vocabulary",
    "trained_context",
    "table",
    "input_weights",
    "output_weights",
    "layer_inputs",
)
_FLAGS = ("tied", "caches", "parallel")


class RecordError(ValueError):
    """A record is malformed, or breaks a bound."""


def encode(parts: Parts) -> str:
    """Return the record. Raises UnplannableError if it would break a bound of `decode`, as sizes
    that are computed from a header may, though each number in it is within its own."""
    tree = {
        "model": _model(parts.model),
        "draft": parts.draft and _model(parts.draft),
        "projector": parts.projector and list(astuple(parts.projector)),
    }
    packed = zlib.compress(json.dumps(tree, separators=(",", ":")).encode(), 9)
    record = f"{VERSION}.{base64.b64encode(packed).decode()}"
    if len(record) > MAX_LENGTH:
        raise UnplannableError("it has too many layers of different sizes")
    try:
        decode(record)
    except RecordError as error:
        raise UnplannableError(str(error)) from None
    return record


def decode(record: str) -> Parts:
    """Return the sizes in a record. Raises RecordError."""
    version, _, packed = record.partition(".")
    if len(record) > MAX_LENGTH or version != VERSION:
        raise RecordError(f"it is not a record of version {VERSION}")
    try:
        tree = parse(_unpacked(packed), max_bytes=_MAX_JSON)
        return Parts(
            model=_dimensions(tree["model"]),
            draft=_dimensions(tree["draft"]) if tree["draft"] is not None else None,
            projector=_projector(tree["projector"]) if tree["projector"] is not None else None,
        )
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RecordError("it is malformed") from error


def _unpacked(packed: str) -> bytes:
    try:
        compressed = base64.b64decode(packed, validate=True)
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(compressed, _MAX_JSON)
    except (binascii.Error, zlib.error) as error:
        raise RecordError("it is malformed") from error
    if not unpacker.eof:
        raise RecordError("it is too long")
    return text


def _model(model: Dimensions) -> dict[str, Any]:
    different = list(dict.fromkeys(model.layers))
    index = {layer: number for number, layer in enumerate(different)}
    return {
        "architecture": model.architecture,
        "numbers": [getattr(model, name) for name in _NUMBERS],
        "flags": [getattr(model, name) for name in _FLAGS],
        "different": [list(astuple(layer)) for layer in different],
        "layers": [index[layer] for layer in model.layers],
    }


def _dimensions(tree: dict[str, Any]) -> Dimensions:
    architecture = tree["architecture"]
    if not isinstance(architecture, str) or not 0 < len(architecture) <= _MAX_ARCHITECTURE:
        raise RecordError("it is malformed")
    if len(tree["layers"]) > MAX_LAYERS or len(tree["different"]) > MAX_LAYERS:
        raise RecordError("it has too many layers")
    # Equal layers are one object, whatever the record has, and planned once.
    distinct: dict[Layer, Layer] = {}
    different = [distinct.setdefault(each, each) for each in map(_layer, tree["different"])]
    layers = tuple(different[number] for number in _natural(tree["layers"]))
    values: dict[str, Any] = dict(zip(_NUMBERS, _natural(tree["numbers"]), strict=True))
    values |= zip(_FLAGS, map(_flag, tree["flags"]), strict=True)
    model = Dimensions(architecture=architecture, layers=layers, **values)
    if model.weights > MAX_BYTES:
        raise RecordError("its tensors have more than a petabyte")
    return model


def _layer(numbers: Sequence[Any]) -> Layer:
    values: dict[str, Any] = {
        field.name: _flag(value) if isinstance(field.default, bool) else next(_natural([value]))
        for field, value in zip(fields(Layer), numbers, strict=True)
    }
    return Layer(**values)


def _projector(numbers: Sequence[Any]) -> Projector:
    weights, compute = _natural(numbers)
    return Projector(weights, compute)


def _natural(values: Sequence[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_BYTES:
            raise RecordError("it has a number out of bounds")
        yield value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RecordError("it is malformed")
    return value
