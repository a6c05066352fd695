"""A GGUF header is parsed as far as possible, with work bounded by its size."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter, LlamaFileType
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.gguf import (
    HEAD_BYTES,
    QUANTIZATIONS,
    WINDOW_BYTES,
    GgufMetadata,
    read_metadata,
)

LLAMA = GgufMetadata(
    architecture="llama",
    context_length=8192,
    layers=32,
    quantization="Q4_K_M",
    name="Llama 3 8B Instruct",
    size_label="8B",
)


def string(text: str | bytes) -> bytes:
    encoded = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(encoded)) + encoded


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def text(key: str, value: str | bytes) -> bytes:
    return pair(key, 8, string(value))


def u32(key: str, value: int) -> bytes:
    return pair(key, 4, struct.pack("<I", value))


def array(key: str, kind: int, count: int, items: bytes) -> bytes:
    return pair(key, 9, struct.pack("<IQ", kind, count) + items)


def header(*pairs: bytes, version: int = 3, count: int | None = None) -> bytes:
    pair_count = len(pairs) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, 0, pair_count) + b"".join(pairs)


PAIRS = (
    text("general.architecture", "llama"),
    text("general.name", "Llama 3 8B Instruct"),
    text("general.size_label", "8B"),
    u32("llama.context_length", 8192),
    u32("llama.block_count", 32),
    array("tokenizer.ggml.tokens", 8, 3, string("a") + string("") + string("b" * 300)),
    array("tokenizer.ggml.scores", 6, 3, bytes(12)),
    text("tokenizer.chat_template", "{{ messages }}" * 500),
    u32("general.file_type", 15),
)
COMPLETE = header(*PAIRS)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., bytes]:
    """Writes a file with llama.cpp's own library; the argument adds metadata."""

    def write(add_metadata: Callable[[GGUFWriter], object]) -> bytes:
        writer = GGUFWriter(tmp_path / "model.gguf", "gemma3")
        add_metadata(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return (tmp_path / "model.gguf").read_bytes()

    return write


def test_a_real_file_is_described(written: Callable[..., bytes]) -> None:
    def add_metadata(writer: GGUFWriter) -> None:
        writer.add_name("Gemma 3 4B")
        writer.add_size_label("4B")
        writer.add_context_length(131072)
        writer.add_block_count(34)
        writer.add_token_list([b"<token %d>" % number for number in range(50_000)])
        writer.add_token_scores([0.5] * 50_000)
        writer.add_token_types([1] * 50_000)
        writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)

    assert read_metadata(written(add_metadata)) == GgufMetadata(
        "gemma3", 131072, 34, "Q8_0", "Gemma 3 4B", "4B"
    )


def test_missing_keys_of_a_real_file_are_none(written: Callable[..., bytes]) -> None:
    assert read_metadata(written(lambda _: None)) == GgufMetadata(architecture="gemma3")


def test_quantizations_have_the_names_of_llama_cpp() -> None:
    names = {int(kind): kind.name.removeprefix("MOSTLY_") for kind in LlamaFileType}
    del names[LlamaFileType.GUESSED]

    assert names == {**QUANTIZATIONS, 0: "ALL_F32"}


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(version: int) -> None:
    assert read_metadata(header(*PAIRS, version=version)) == LLAMA


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"GGUF", id="only the magic"),
        pytest.param(b"GGML" + COMPLETE[4:], id="another magic"),
        pytest.param(header(*PAIRS, version=1), id="version 1"),
        pytest.param(b"GGUF" + struct.pack(">I", 3) + COMPLETE[8:], id="big-endian"),
        pytest.param(header(*PAIRS, count=0), id="no pairs"),
        pytest.param(header(struct.pack("<Q", 2**64 - 1)), id="an endless key"),
        pytest.param(header(array("a", 8, 2**64 - 1, b""), *PAIRS), id="endless strings"),
        pytest.param(header(array("a", 0, 2**64 - 1, b""), *PAIRS), id="endless bytes"),
        pytest.param(header(array("a", 8, 2**20, bytes(2**22)), *PAIRS), id="too many strings"),
        pytest.param(header(array("a", 8, 1, string("")[:-1])), id="a truncated string"),
        pytest.param(header(array("a", 9, 1, bytes(99)), *PAIRS), id="an array of arrays"),
        pytest.param(header(pair("a", 13, bytes(8)), *PAIRS), id="an unknown type"),
        pytest.param(header(*[u32("a", 1)] * 5000, *PAIRS), id="too many pairs"),
    ],
)
def test_a_malformed_header_has_no_metadata(head: bytes) -> None:
    assert read_metadata(head) == GgufMetadata()


@pytest.mark.parametrize(
    ("replaced", "by", "changes"),
    [
        (0, text("general.architecture", "\n"), {"architecture": None}),
        (0, text("general.architecture", b"\xff"), {"architecture": None}),
        (0, text("general.architecture", "a" * 129), {"architecture": None}),
        (0, u32("general.architecture", 1), {"architecture": None}),
        (1, text("general.name", "x" * 129), {"name": None}),
        (1, text("general.name", "x" * 99_999), {"name": None}),
        (1, text("general.name", ""), {"name": None}),
        (2, array("general.size_label", 8, 1, string("8B")), {"size_label": None}),
        (3, u32("llama.context_length", 0), {"context_length": None}),
        (3, u32("llama.context_length", 2**32 - 1), {"context_length": None}),
        (3, pair("llama.context_length", 11, struct.pack("<q", -1)), {"context_length": None}),
        (3, pair("llama.context_length", 6, struct.pack("<f", 8192)), {"context_length": None}),
        (3, pair("llama.context_length", 7, b"\x01"), {"context_length": None}),
        (3, pair("llama.context_length", 10, struct.pack("<Q", 4096)), {"context_length": 4096}),
        (3, u32("other.context_length", 1), {"context_length": None}),
        (8, u32("general.file_type", 4), {"quantization": None}),
        (8, u32("general.file_type", 1024), {"quantization": None}),
        (8, u32("general.file_type", 0), {"quantization": "F32"}),
    ],
)
def test_an_invalid_value_is_dropped(replaced: int, by: bytes, changes: dict[str, Any]) -> None:
    pairs = list(PAIRS)
    pairs[replaced] = by

    metadata = read_metadata(header(*pairs))

    if "architecture" in changes:
        changes = changes | {"context_length": None, "layers": None}
    assert metadata == replace(LLAMA, **changes)


@given(st.integers(0, len(COMPLETE)))
def test_a_truncated_header_is_parsed_up_to_its_end(size: int) -> None:
    metadata = read_metadata(COMPLETE[:size])

    for value, complete in zip(astuple(metadata), astuple(LLAMA), strict=True):
        assert value in {None, complete}


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_make_it_fail(noise: bytes, framed: bool) -> None:
    metadata = read_metadata(b"GGUF" + struct.pack("<IQQ", 3, 0, 9) + noise if framed else noise)

    assert isinstance(metadata, GgufMetadata)


@given(st.integers(0, len(COMPLETE) - 1), st.binary(min_size=1, max_size=8))
def test_no_damage_makes_it_fail(at: int, noise: bytes) -> None:
    metadata = read_metadata(COMPLETE[:at] + noise + COMPLETE[at + len(noise) :])

    assert isinstance(metadata, GgufMetadata)


@given(st.integers(WINDOW_BYTES - 400, WINDOW_BYTES + 20))
def test_values_across_the_edge_of_a_window_are_read(size: int) -> None:
    padding = array("padding", 0, size, bytes(size))

    assert read_metadata(header(padding, *PAIRS)) == LLAMA


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(header(array("a", 8, 2**18, bytes(2**21)), *PAIRS), id="empty strings"),
        pytest.param(header(text("a", bytes(2**24)), *PAIRS), id="a long string"),
        pytest.param(header(text("a", b"")[:-8] + struct.pack("<Q", 2**64 - 1)), id="no end"),
        pytest.param(header(*[array("a", 8, 2**10, bytes(2**13))] * 2**8), id="many arrays"),
    ],
)
def test_no_header_takes_more_memory_than_a_few_windows(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(head + bytes(2 * HEAD_BYTES))
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            read_metadata(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * WINDOW_BYTES
