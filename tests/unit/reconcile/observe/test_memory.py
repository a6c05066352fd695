"""What a server loads, and its settings, are in the verdict on its memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inspection_jobs import EIGHT, GIB, LAYER, PARTS
from llamaservers import ROOT, server
from slotkeeper.llamacpp.memory.dimensions import Dimensions
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.projector import Projector
from slotkeeper.llamacpp.memory.record import encode
from slotkeeper.reconcile.observe.memory import (
    CHANGES_MEMORY,
    Header,
    MemoryFacts,
    load_of,
    settings,
    verdict,
)

FLAGS_FILE = Path(ROOT, "tests/unit/llamacpp/flags-b11669.txt")
URL = "https://models.example.com/model.gguf"
DRAFT = {"draft": {"url": "https://models.example.com/draft.gguf"}}
MMPROJ = {"url": "https://models.example.com/mmproj.gguf"}
PROJECTOR = {"url": URL, "mmproj": MMPROJ}
SMALL = Dimensions("llama", (LAYER,) * 4, 4096, 128_000, 131_072, GIB // 4, True, 0, 16_384)


def needed(parts: Parts, **spec: Any) -> int:
    """The bytes that the fullest GPU of a server needs."""
    facts = MemoryFacts("", "", Header(encode(parts)), gpu_bytes=80 * GIB)
    found = verdict(server("chat", **EIGHT | spec), facts)
    assert found.needed_bytes is not None, found.message
    return found.needed_bytes


def test_no_more_slots_are_reported_than_a_server_may_have() -> None:
    facts = MemoryFacts("", "", Header(encode(Parts(SMALL))), gpu_bytes=800 * GIB)

    assert verdict(server("chat", contextPerSlot=256), facts).slots == 256


def test_a_projector_counts_where_it_is() -> None:
    parts = replace(PARTS, projector=Projector(GIB, GIB // 2))
    on_cpu = {"url": URL, "mmproj": {**MMPROJ, "offload": False}}

    without = needed(PARTS)

    assert needed(parts, model=PROJECTOR) - without == GIB + GIB // 2
    assert needed(parts, model=on_cpu) == without


def test_a_draft_counts_with_its_layers() -> None:
    parts = replace(PARTS, draft=SMALL)
    on_cpu = {"draft": {**DRAFT["draft"], "gpuLayers": 0}}

    without = needed(PARTS)

    assert needed(parts, speculative=DRAFT) - without > GIB
    # The GPU computes its batches nevertheless.
    assert 0 < needed(parts, speculative=on_cpu) - without < GIB


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        ({"kvCacheType": "q8_0"}, -1),
        ({"slots": 16}, 1),
        ({"contextPerSlot": 16384}, 1),
        ({"gpu": {"layers": 10}}, -1),
        ({"gpu": {"count": 2}}, -1),
        ({"gpu": {"count": 2, "splitMode": "none"}}, 0),
        ({"gpu": {"count": 2, "tensorSplit": [1, 0]}}, 1),
        ({"workers": {"count": 1}}, -1),
        ({"flashAttention": "disabled"}, 1),
        ({"extraArgs": ["-ub", "2048"]}, 1),
    ],
    ids=str,
)
def test_settings_change_what_is_needed(spec: dict[str, Any], change: int) -> None:
    found = needed(PARTS, **spec) - needed(PARTS)

    assert (found > 0) - (found < 0) == change


@pytest.mark.parametrize(
    ("spec", "batch", "micro_batch"),
    [
        ({}, 2048, 512),
        ({"extraArgs": ["-ub", "0"]}, 2048, 2048),
        ({"extraArgs": ["-b", "1024", "-ub", "0"]}, 1024, 1024),
        ({"extraArgs": ["-b", "100"]}, 100, 100),
        ({"extraArgs": ["-ub", "64", "--ubatch_size", "128"]}, 2048, 128),
        ({"embeddings": {}}, 4096, 4096),
        ({"embeddings": {"pooling": "last"}}, 512, 512),
        ({"embeddings": {"pooling": "last"}, "contextPerSlot": 256}, 256, 256),
    ],
    ids=str,
)
def test_batches_are_those_of_llama_server(
    spec: dict[str, Any], batch: int, micro_batch: int
) -> None:
    """As llama-server b11669 logs them."""
    load = load_of(server("chat", **spec), 15 * GIB)

    assert (load.batch, load.micro_batch) == (batch, micro_batch)


def test_all_spellings_of_flags_that_change_memory_are_known() -> None:
    on_by_default = {"-kvo", "--kv-offload"}
    lines = FLAGS_FILE.read_text().splitlines()
    spellings = [set(line.split()[1:]) - on_by_default for line in lines if line[0] != "#"]

    known = set().union(*(each for each in spellings if each & CHANGES_MEMORY))
    assert known == CHANGES_MEMORY


@pytest.mark.parametrize(
    "arguments", [["-ub"], ["-ub", "many"], ["--batch-size", "-1"], ["-b", "²"]]
)
def test_a_batch_that_is_no_number_is_not_planned(arguments: list[str]) -> None:
    facts = MemoryFacts("", "", Header(encode(PARTS)), gpu_bytes=80 * GIB)

    found = verdict(server("chat", extraArgs=arguments), facts)

    assert found.fits is None
    assert found.message.startswith("memory is not planned: extraArgs have no number after -")


def test_an_empty_batch_is_not_planned() -> None:
    facts = MemoryFacts("", "", Header(encode(PARTS)), gpu_bytes=80 * GIB)

    found = verdict(server("chat", extraArgs=["-b", "0"]), facts)

    assert found.message == "memory is not planned: extraArgs have 0 after -b or --batch-size"


def test_a_plan_beyond_all_bounds_is_a_status_that_the_api_server_accepts() -> None:
    layer = replace(LAYER, weights=0, key=2**50, value=2**50, state=2**50, feed_forward=2**50)
    parts = Parts(replace(SMALL, layers=(layer,) * 512))

    assert needed(parts, contextPerSlot=16_777_216) == 2**63 - 1


def test_a_release_makes_no_other_choice() -> None:
    """With another hash, an upgrade would choose `auto` of all servers again, and replace their
    replicas."""
    rich = server(
        "chat",
        contextPerSlot="auto",
        slots=8,
        kvCacheType="q8_0",
        gpu={"count": 2, "memory": "15Gi", "splitMode": "row", "tensorSplit": [1, 2]},
        extraArgs=["-ub", "1024"],
        model=PROJECTOR,
        speculative=DRAFT,
        placement={"nodeSelector": {"pool": "gpu"}},
    )

    assert settings(server("chat", contextPerSlot="auto")) == "3b362198"
    assert settings(rich) == "76d6c25d"


def test_what_memory_does_not_depend_on_makes_no_other_choice() -> None:
    first = settings(server("chat", contextPerSlot="auto"))

    for spec in ({"replicas": 3}, {"suspend": True}, {"sampling": {"topK": 1}}):
        assert settings(server("chat", contextPerSlot="auto", **spec)) == first
    for other in ({"slots": 8}, {"gpu": {"memory": "9Gi"}}, {"model": {"url": f"{URL}2"}}):
        assert settings(server("chat", contextPerSlot="auto", **other)) != first
