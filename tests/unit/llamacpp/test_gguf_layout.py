"""The size that a GGUF header requires of its file."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from gguf_files import gguf
from slotkeeper.api.split_model import part_name
from slotkeeper.llamacpp.gguf import MAX_PAIRS, MAX_TENSORS
from slotkeeper.llamacpp.gguf_layout import BLOCKS, Layout, Vocabulary, read_layout
from slotkeeper.llamacpp.gguf_split import Part

FILE = gguf(tensors={"a": 10, "b": 1000, "c": 7})


def test_the_sizes_of_blocks_are_those_of_llama_cpp() -> None:
    assert {GGML_QUANT_SIZES[GGMLQuantizationType(kind)] for kind in BLOCKS} == {*BLOCKS.values()}
    for kind, block in BLOCKS.items():
        assert GGML_QUANT_SIZES[GGMLQuantizationType(kind)] == block


@pytest.mark.parametrize("alignment", [None, 32, 64, 4096])
def test_a_file_has_the_size_that_its_header_requires(alignment: int | None) -> None:
    file = gguf(tensors={"a": 10, "b": 1000}, alignment=alignment)

    assert (read_layout(file).size, read_layout(file).parts) == (len(file), 1)


def test_a_file_of_llama_cpp_s_own_library_has_the_size_that_its_header_requires(
    tmp_path: Path,
) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("a", np.zeros((3, 256), dtype=np.float16))
    quantized = np.zeros((4, 144), dtype=np.uint8)
    writer.add_tensor("b", quantized, raw_dtype=GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = (tmp_path / "model.gguf").read_bytes()

    # The writer pads the last tensor; llama.cpp does not need that.
    assert len(file) - 32 < read_layout(file).size <= len(file)


@given(st.integers(4, len(FILE) - 1))
def test_each_beginning_of_a_file_is_shorter_than_its_header_requires(size: int) -> None:
    assert read_layout(FILE[:size]).size > size


def test_the_place_of_a_file_in_a_split_model_is_returned() -> None:
    file = gguf({"a": 1, "b": 1}, split_no=1, split_count=3, model_tensors=9)

    assert read_layout(file) == Layout(len(file), parts=3, part=2, tensors=2, model_tensors=9)


def test_the_vocabulary_of_a_model_is_returned() -> None:
    file = gguf({"a": 8}, tokens=["x", "y", "z"], tokenizer="gpt2")

    assert read_layout(file).vocabulary == Vocabulary("gpt2", 3)
    assert read_layout(gguf({"a": 8}, tokens=["x"])).vocabulary is None
    assert read_layout(gguf({"a": 8}, tokenizer="gpt2")).vocabulary is None


def test_files_that_llama_cpp_s_own_library_has_split_belong_together(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "llama", split_max_tensors=2)
    for name in "abcde":
        writer.add_tensor(name, np.zeros(256, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = sorted(tmp_path.iterdir())
    expected = Part(count=3)

    assert [part_name(str(files[0]), number) for number in (1, 2, 3)] == [*map(str, files)]
    for file in files:
        layout = read_layout(file.read_bytes())
        assert expected.mismatch(layout) is None
        expected = expected.next(layout)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GGUF" + struct.pack("<IQQ", 9, 0, 0), id="unknown version"),
        pytest.param(b"GGML" + FILE[4:], id="another format"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQ", 3, MAX_TENSORS + 1, 0) + bytes(999), id="many tensors"
        ),
        pytest.param(
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, MAX_PAIRS + 1)
            + (struct.pack("<Q", 1) + b"a" + struct.pack("<IB", 0, 0)) * (MAX_PAIRS + 1),
            id="many pairs",
        ),
        pytest.param(
            b"GGUF"
            + struct.pack("<IQQ", 3, 1, 0)
            + struct.pack("<Q", 1)
            + b"a"
            + struct.pack("<I", 5)
            + bytes(99),
            id="five dimensions",
        ),
    ],
)
def test_an_unreadable_header_requires_nothing(head: bytes) -> None:
    assert (read_layout(head).size, read_layout(head).parts) == (0, 1)


def test_an_unknown_type_counts_as_empty() -> None:
    tensor = struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 1 << 40, 999, 64)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor

    assert read_layout(head).size == -(-len(head) // 32) * 32 + 64


def test_an_invalid_alignment_requires_no_more_than_the_header() -> None:
    file = gguf(tensors={"a": 1}, alignment=1)
    zero = file.replace(struct.pack("<I", 1), struct.pack("<I", 0), 1)

    assert read_layout(file).size == len(file)
    assert read_layout(zero).size <= len(file)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_error(noise: bytes) -> None:
    read_layout(FILE[:24] + noise)
    read_layout(noise)
