"""The sizes of a model survive their record, and nothing else is accepted as one."""

import base64
import hashlib
import json
import zlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planned_model import write
from planned_models import MODELS
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer, UnplannableError
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.projector import Projector
from slotkeeper.llamacpp.memory.read import read_dimensions, read_header
from slotkeeper.llamacpp.memory.record import MAX_LENGTH, VERSION, RecordError, decode, encode

LAYER = Layer(2**20, heads=32, key=1024, value=1024, feed_forward=40_000)
MODEL = Dimensions("llama", (LAYER,) * 32, 4096, 128_000, 131_072, 2**28, True, 0, 16_384)

NUMBERS = st.integers(0, 2**40)
LAYERS = st.builds(
    Layer,
    weights=NUMBERS,
    experts=NUMBERS,
    heads=NUMBERS,
    key=NUMBERS,
    state=NUMBERS,
    normalizes_attention=st.booleans(),
)
DIMENSIONS = st.builds(
    Dimensions,
    architecture=st.text(min_size=1, max_size=128).filter(lambda name: name.isascii()),
    layers=st.lists(LAYERS, min_size=1, max_size=9).map(lambda few: tuple(few * 5)),
    embedding=NUMBERS,
    vocabulary=NUMBERS,
    trained_context=NUMBERS,
    table=NUMBERS,
    tied=st.booleans(),
    input_weights=NUMBERS,
    output_weights=NUMBERS,
    caches=st.booleans(),
)
PARTS = st.builds(
    Parts,
    model=DIMENSIONS,
    draft=st.none() | DIMENSIONS,
    projector=st.none() | st.builds(Projector, NUMBERS, NUMBERS),
)


@given(PARTS)
def test_a_record_has_everything_that_memory_depends_on(parts: Parts) -> None:
    record = encode(parts)

    assert decode(record) == parts
    assert record.isascii()
    assert len(record) <= MAX_LENGTH


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_record_of_each_known_architecture_is_short(name: str, tmp_path: Path) -> None:
    dimensions = _read(name, tmp_path / "model.gguf")

    record = encode(Parts(dimensions))

    assert decode(record).model == dimensions
    assert len(record) < 1000


def test_what_is_read_changes_only_with_the_version() -> None:
    """Records are kept in the status of servers: where headers are read in another way, they have
    to be read again, by another VERSION."""
    with TemporaryDirectory() as folder:
        found = [_read(name, Path(folder, name)) for name in sorted(MODELS)]

    assert (VERSION, hashlib.sha256(repr(found).encode()).hexdigest()[:8]) == ("2", "15f845d2")


def _read(name: str, path: Path) -> Dimensions:
    write(MODELS[name](), path, vocabulary=False)
    with path.open("rb") as file:
        return read_dimensions([read_header(file)])


def test_a_model_whose_layers_all_differ_is_too_long_a_record() -> None:
    layers = tuple(
        Layer(weights=7**number % 2**49, key=11**number % 2**49) for number in range(1, 400)
    )

    with pytest.raises(UnplannableError, match="too many layers of different sizes"):
        encode(Parts(replace(MODEL, layers=layers)))


def test_a_size_that_no_record_may_have_is_not_recorded() -> None:
    # Each number in the header is within its bound: 2^31 heads of 2^31 numbers.
    layers = (replace(LAYER, query=2**62),)

    with pytest.raises(UnplannableError, match="a number out of bounds"):
        encode(Parts(replace(MODEL, layers=layers)))


def test_equal_layers_of_a_record_are_one_object() -> None:
    tree = _tree(encode(Parts(MODEL)))
    tree["model"]["different"] *= 512
    tree["model"]["layers"] = list(range(512))

    layers = decode(_record(tree)).model.layers

    assert len(layers) == 512
    assert len({id(layer) for layer in layers}) == 1


@given(
    st.text(max_size=4000) | st.binary(max_size=3000).map(lambda raw: f"{VERSION}.{_base64(raw)}")
)
def test_random_text_is_no_record(text: str) -> None:
    with pytest.raises(RecordError):
        decode(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@given(st.data())
def test_a_record_with_any_part_replaced_is_rejected_or_within_bounds(data: Any) -> None:
    tree = _tree(encode(Parts(MODEL, draft=MODEL, projector=Projector(1, 2))))
    path = data.draw(st.sampled_from(sorted(_paths(tree), key=repr)))
    _replace(tree, path, data.draw(JSON))

    try:
        parts = decode(_record(tree))
    except RecordError:
        return

    assert parts.model.weights <= 2**50
    assert len(parts.model.layers) <= 512


@pytest.mark.parametrize(
    "record",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"{int(VERSION) + 1}." + encode(Parts(MODEL))[2:], id="another version"),
        pytest.param(encode(Parts(MODEL))[:-8], id="truncated"),
        pytest.param(f"{VERSION}." + "A" * MAX_LENGTH, id="too long"),
    ],
)
def test_a_damaged_record_is_rejected(record: str) -> None:
    with pytest.raises(RecordError):
        decode(record)


def test_a_record_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    bomb = zlib.compress(b" " * 2_000_000, 9)

    with pytest.raises(RecordError, match="too long"):
        decode(f"{VERSION}.{_base64(bomb)}")


def test_more_weights_than_any_model_has_are_rejected() -> None:
    tree = _tree(encode(Parts(MODEL)))
    tree["model"]["different"][0][0] = 2**49

    with pytest.raises(RecordError, match="petabyte"):
        decode(_record(tree))


@pytest.mark.parametrize("number", [-1, 2**50 + 1, True, 1.5, "1", None])
def test_a_size_must_be_a_bounded_integer(number: Any) -> None:
    tree = _tree(encode(Parts(MODEL)))
    tree["model"]["different"][0][3] = number

    with pytest.raises(RecordError, match="out of bounds"):
        decode(_record(tree))


def test_a_negative_index_of_a_layer_is_rejected() -> None:
    tree = _tree(encode(Parts(MODEL)))
    tree["model"]["layers"][0] = -1

    with pytest.raises(RecordError):
        decode(_record(tree))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _tree(record: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(record[2:])))


def _record(tree: Any) -> str:
    return f"{VERSION}.{_base64(zlib.compress(json.dumps(tree).encode(), 9))}"


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _paths(value, (*path, key))


def _replace(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    if path:
        tree[path[-1]] = value
