"""Whether a file is what its field is for."""

import pytest

from gguf_files import gguf
from slotkeeper.llamacpp.gguf_layout import read_layout
from slotkeeper.llamacpp.gguf_use import Kind, Use


def header(kind: str | None, architecture: str | None) -> bytes:
    return gguf({"weights": 8}, kind=kind, architecture=architecture)


@pytest.mark.parametrize(
    ("use", "kind", "architecture"),
    [
        (Use(Kind.MODEL), "model", "llama"),
        (Use(Kind.MODEL), None, "llama"),
        (Use(Kind.MODEL), "something new", "llama"),
        (Use(Kind.PROJECTOR), "mmproj", "clip"),
        (Use(Kind.PROJECTOR), None, "clip"),
        (Use(Kind.PROJECTOR), "mmproj", "something new"),
        (Use(Kind.ADAPTER, "llama"), "adapter", "llama"),
        (Use(Kind.ADAPTER, None), "adapter", "llama"),
        (Use(Kind.ADAPTER, "llama"), "adapter", None),
        (Use(), "adapter", "llama"),
        *((Use(kind, "llama"), None, None) for kind in Kind),
    ],
)
def test_a_file_that_may_fit_is_accepted(
    use: Use, kind: str | None, architecture: str | None
) -> None:
    assert use.mismatch(read_layout(header(kind, architecture))) is None


@pytest.mark.parametrize(
    ("use", "kind", "architecture", "message"),
    [
        (Use(Kind.MODEL), "mmproj", "clip", "a projector (model.mmproj)"),
        (Use(Kind.MODEL), None, "clip", "a projector (model.mmproj)"),
        (Use(Kind.MODEL), "adapter", "llama", "a LoRA adapter (model.adapters)"),
        (Use(Kind.PROJECTOR), "model", "llama", "a model according to its GGUF header"),
        (Use(Kind.PROJECTOR), None, "llama", "not a projector (model.mmproj)"),
        (Use(Kind.PROJECTOR), "adapter", "llama", "a LoRA adapter"),
        (Use(Kind.ADAPTER, "llama"), "model", "llama", "not a LoRA adapter (model.adapters)"),
        (Use(Kind.ADAPTER, "llama"), "mmproj", "clip", "a projector"),
        (
            Use(Kind.ADAPTER, "llama"),
            "adapter",
            "qwen2",
            "that has the architecture 'qwen2', and this model has 'llama'",
        ),
    ],
)
def test_a_swapped_file_is_rejected(
    use: Use, kind: str | None, architecture: str | None, message: str
) -> None:
    mismatch = use.mismatch(read_layout(header(kind, architecture)))

    assert mismatch is not None
    assert message in mismatch
