"""Dimensions are read from headers, which are untrusted."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planned_model import F32, RMS, PlannedModel, write
from planned_models import MODELS
from slotkeeper.llamacpp.gguf import Tensor, Value
from slotkeeper.llamacpp.memory.dimensions import Dimensions, UnplannableError
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts, plan
from slotkeeper.llamacpp.memory.projector import MAX_PATCHES, read_projector
from slotkeeper.llamacpp.memory.read import FileHeader, read_dimensions, read_header


def head(model: PlannedModel, folder: Path) -> bytes:
    path = folder / "model.gguf"
    write(model, path, vocabulary=False)
    with path.open("rb") as file:
        return file.read(1024**2)


def read(model: PlannedModel, folder: Path) -> Dimensions:
    return read_dimensions([read_header(head(model, folder))])


LAYER = [
    ("attn_q.weight", (64, 64), F32),
    ("attn_k.weight", (64, 32), F32),
    ("attn_v.weight", (64, 32), F32),
    ("attn_output.weight", (64, 64), F32),
    ("ffn_norm.weight", (64,), F32),
    ("ffn_up.weight", (64, 128), F32),
    ("ffn_down.weight", (128, 64), F32),
]
SMALL = PlannedModel(
    "llama",
    100,
    {
        "block_count": 4,
        "embedding_length": 64,
        "context_length": 512,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    },
    [
        ("token_embd.weight", (64, 100), F32),
        *(
            (f"blk.{number}.{name}", shape, kind)
            for number in range(4)
            for name, shape, kind in LAYER
        ),
    ],
    RMS,
)


def with_numbers(**numbers: int | list[int]) -> PlannedModel:
    dotted = {name.replace("__", "."): number for name, number in numbers.items()}
    return replace(SMALL, numbers={**SMALL.numbers, **dotted})


def windows(model: PlannedModel, folder: Path) -> list[int]:
    return [layer.window for layer in read(model, folder).layers]


def test_the_sizes_of_a_model_are_read(tmp_path: Path) -> None:
    dimensions = read(SMALL, tmp_path)

    assert (dimensions.embedding, dimensions.vocabulary) == (64, 100)
    assert dimensions.trained_context == 512
    assert dimensions.table == 64 * 100 * 4
    assert dimensions.tied
    layer = dimensions.layers[0]
    assert layer.weights == 4 * (2 * 64 * 64 + 2 * 64 * 32 + 64 + 2 * 64 * 128)
    assert (layer.heads, layer.key, layer.value) == (4, 32, 32)
    assert layer.feed_forward == 128


def test_a_split_model_is_read_from_the_headers_of_all_files(tmp_path: Path) -> None:
    whole = read_header(head(SMALL, tmp_path))
    first = FileHeader(whole.values, whole.tensors[:9], files=2)
    second = FileHeader({}, whole.tensors[9:], files=2)

    assert read_dimensions([first, second]) == read_dimensions([whole])
    with pytest.raises(UnplannableError, match="one of 2 files of a split model"):
        read_dimensions([first])


def test_layers_that_predict_further_tokens_are_not_loaded(tmp_path: Path) -> None:
    layers = read(with_numbers(nextn_predict_layers=1), tmp_path).layers

    assert [layer.weights > 0 for layer in layers] == [True, True, True, False]
    assert layers[3].key == 0


def test_the_window_of_an_architecture_without_one_is_ignored(tmp_path: Path) -> None:
    assert windows(with_numbers(attention__sliding_window=128), tmp_path) == [0] * 4


@pytest.mark.parametrize(
    ("architecture", "numbers", "expected"),
    [
        ("gemma3", {"attention.sliding_window": 128}, [128, 128, 128, 128]),
        ("gemma3", {}, [0, 0, 0, 0]),
        ("gemma2", {}, [4096, 0, 4096, 0]),
        ("gpt-oss", {"attention.sliding_window": 128}, [128, 0, 128, 0]),
        ("cohere2", {"attention.sliding_window": 128}, [128, 128, 128, 0]),
        ("cohere2moe", {"attention.sliding_window": 128}, [0, 128, 128, 128]),
        ("llama4", {"attention.sliding_window": 128}, [8192, 8192, 8192, 0]),
        ("llama4", {"attention.sliding_window": 0}, [0, 0, 0, 0]),
        ("exaone4", {"attention.sliding_window": 128}, [0, 0, 0, 0]),
        (
            "gemma3",
            {"attention.sliding_window": 9, "attention.sliding_window_pattern": [1, 0, 0, 1]},
            [9, 0, 0, 9],
        ),
        (
            "gemma3",
            {"attention.sliding_window": 9, "attention.sliding_window_pattern": 2},
            [9, 0, 9, 0],
        ),
        ("phi3", {"attention.sliding_window": 128}, [0, 0, 0, 0]),
    ],
)
def test_the_layers_with_a_window_depend_on_the_architecture(
    architecture: str, numbers: dict[str, int | list[int]], expected: list[int], tmp_path: Path
) -> None:
    model = replace(SMALL, architecture=architecture, numbers={**SMALL.numbers, **numbers})

    assert windows(model, tmp_path) == expected


def test_later_layers_of_gemma4_have_no_cache_of_their_own(tmp_path: Path) -> None:
    model = replace(with_numbers(attention__shared_kv_layers=3), architecture="gemma4")

    assert [layer.key for layer in read(model, tmp_path).layers] == [32, 0, 0, 0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"block_count": 0}, "block_count .* is 0, not from 1 to 512"),
        ({"block_count": 100_000}, "block_count .* is 100000, not from 1 to 512"),
        ({"block_count": 2}, "tensor of layer 2, and 2 layers"),
        ({"attention__head_count": 0}, "layer 0 has attention, and no attention heads"),
        ({"attention__head_count": 2**32 - 1}, "head_count .* is 4294967295"),
        ({"nextn_predict_layers": 5}, "nextn_predict_layers .* is 5, not from 0 to 4"),
        ({"embedding_length": 0}, "embedding_length .* is 0, not from 1"),
    ],
)
def test_numbers_out_of_bounds_are_an_error(
    numbers: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnplannableError, match=message):
        read(with_numbers(**numbers), tmp_path)


def test_an_array_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnplannableError, match="layer 1 has attention, and no attention heads"):
        read(with_numbers(attention__head_count=[4]), tmp_path)


def test_huge_dimensions_are_an_error(tmp_path: Path) -> None:
    header = read_header(head(SMALL, tmp_path))
    tensors = [replace(header.tensors[0], shape=(2**62, 2**62)), *header.tensors[1:]]

    with pytest.raises(UnplannableError, match="dimension of 0 or above"):
        read_dimensions([FileHeader(header.values, tensors)])


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.ffn_down_exps.weight"])
def test_a_tensor_without_dimensions_is_an_error(name: str, tmp_path: Path) -> None:
    header = read_header(head(SMALL, tmp_path))
    tensors = [Tensor(F32, 1, 0, name), *header.tensors]

    with pytest.raises(UnplannableError, match="a tensor has no dimensions"):
        read_dimensions([FileHeader(header.values, tensors)])


def test_more_than_a_petabyte_is_an_error(tmp_path: Path) -> None:
    header = read_header(head(SMALL, tmp_path))
    tensors = [replace(header.tensors[0], shape=(2**30, 2**30), elements=2**60), *header.tensors]

    with pytest.raises(UnplannableError, match="more than a petabyte"):
        read_dimensions([FileHeader(header.values, tensors)])


def test_an_unknown_data_type_is_an_error(tmp_path: Path) -> None:
    header = read_header(head(SMALL, tmp_path))
    tensors = [replace(header.tensors[0], type=999), *header.tensors[1:]]

    with pytest.raises(UnplannableError, match="unknown data type 999"):
        read_dimensions([FileHeader(header.values, tensors)])


@pytest.mark.parametrize("name", ["ll\x1b[31mama", "a\nerror: fits", "mamba\0", "", "..", "x" * 65])
def test_an_architecture_that_is_no_name_is_an_error(name: str, tmp_path: Path) -> None:
    header = read_header(head(SMALL, tmp_path))
    values = {**header.values, "general.architecture": name}

    with pytest.raises(UnplannableError, match=r"^general.architecture .* is '[ -~]*'$"):
        read_dimensions([FileHeader(values, header.tensors)])


def test_architectures_with_another_kind_of_memory_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnplannableError, match="'deepseek4' is not planned"):
        read(replace(SMALL, architecture="deepseek4"), tmp_path)


def test_the_projection_to_the_inputs_of_layers_is_where_the_first_layer_is(
    tmp_path: Path,
) -> None:
    projection = ("per_layer_model_proj.weight", (64, 32), F32)
    without = read(SMALL, tmp_path)

    model = read(replace(SMALL, tensors=[*SMALL.tensors, projection]), tmp_path)

    assert model.layers[0].weights == without.layers[0].weights + 64 * 32 * 4
    assert model.layers[1:] == without.layers[1:]
    assert model.input_weights == 0


def test_a_model_without_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnplannableError, match="no tensor token_embd"):
        read(replace(SMALL, tensors=SMALL.tensors[1:]), tmp_path)


def test_a_header_without_architecture_is_an_error() -> None:
    with pytest.raises(UnplannableError, match=r"no general\.architecture"):
        read_dimensions([FileHeader({}, [])])


def test_each_truncated_header_is_an_error(tmp_path: Path) -> None:
    whole = head(SMALL, tmp_path)
    size = whole.index(b"blk.3.ffn_down.weight") + 20

    for end in range(0, size, 7):
        with pytest.raises(UnplannableError, match="truncated or malformed"):
            read_header(whole[:end])


@cache
def hybrid() -> bytes:
    with TemporaryDirectory() as folder:
        return head(MODELS["lfm2"](), Path(folder))


@given(st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), min_size=1, max_size=5))
def test_no_damage_makes_it_fail_otherwise(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(hybrid())
    for position, byte in changes:
        damaged[position] = byte

    with suppress(UnplannableError):
        dimensions = read_dimensions([read_header(bytes(damaged))])
        plan(Parts(dimensions), Load(4, 4096, flash_attention=False))


def test_many_tensors_are_read_within_seconds(tmp_path: Path) -> None:
    many = replace(
        SMALL,
        tensors=[
            *SMALL.tensors,
            *((f"blk.0.extra{number}.weight", (64,), F32) for number in range(20_000)),
        ],
    )
    path = tmp_path / "model.gguf"
    write(many, path, vocabulary=False)

    started = time.process_time()
    with path.open("rb") as file:
        read_dimensions([read_header(file)])

    assert time.process_time() - started < 5


def test_a_projector_is_read(tmp_path: Path) -> None:
    model = PlannedModel(
        "clip",
        0,
        {
            "vision.image_size": 896,
            "vision.patch_size": 14,
            "vision.embedding_length": 1152,
            "vision.feed_forward_length": 4304,
            "vision.attention.head_count": 16,
        },
        [("v.patch_embd.weight", (14, 14, 3, 1152), F32)],
    )

    projector = read_projector(read_header(head(model, tmp_path)))

    assert projector.weights == 4 * 14 * 14 * 3 * 1152
    assert projector.compute == 4 * 4096 * (5 * 1152 + 3 * 4304 + 16 * 4096)


def test_an_image_has_no_more_patches_than_the_maximum() -> None:
    values: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.vision.image_size": 2**31 - 1,
        "clip.vision.patch_size": 1,
        "clip.vision.embedding_length": 8,
    }

    assert read_projector(FileHeader(values, [])).compute == 4 * MAX_PATCHES * 5 * 8


def test_a_model_is_no_projector(tmp_path: Path) -> None:
    with pytest.raises(UnplannableError, match="not a projector"):
        read_projector(read_header(head(SMALL, tmp_path)))
