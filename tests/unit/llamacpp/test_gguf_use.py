"""Whether a file is what its field is for."""

import pytest

from gguf_files import gguf
from slotkeeper.llamacpp.gguf_layout import Vocabulary, read_layout
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


def draft(tokenizer: str | None, tokens: int) -> bytes:
    names = [str(number) for number in range(tokens)]
    return gguf({"weights": 8}, architecture="llama", tokens=names, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("tokenizer", "tokens"),
    [
        pytest.param("gpt2", 1000, id="the same"),
        pytest.param("gpt2", 1000 - 128, id="tokens that are not used"),
        pytest.param("gpt2", 1000 + 128, id="more of these"),
        pytest.param("tomorrow", 1000, id="a name of a kind that is not known"),
        pytest.param(None, 10, id="no name"),
        pytest.param("gpt2", 0, id="no tokens in the file"),
    ],
)
def test_a_draft_that_may_have_the_models_vocabulary_is_accepted(
    tokenizer: str | None, tokens: int
) -> None:
    use = Use(Kind.MODEL, "qwen2", Vocabulary("gpt2", 1000))

    assert use.mismatch(read_layout(draft(tokenizer, tokens))) is None


@pytest.mark.parametrize(
    ("tokenizer", "tokens"),
    [
        pytest.param("gpt2", 1000 - 129, id="fewer tokens"),
        pytest.param("gpt2", 1000 + 129, id="more tokens"),
        pytest.param("llama", 1000, id="another kind of tokenizer"),
    ],
)
def test_a_draft_of_another_vocabulary_is_rejected(tokenizer: str, tokens: int) -> None:
    layout = read_layout(draft(tokenizer, tokens))

    assert Use(Kind.MODEL, "qwen2", Vocabulary("gpt2", 1000)).mismatch(layout) == (
        f"a draft of another model: it has {tokens} tokens of the tokenizer {tokenizer!r}, and the "
        "model has 1000 of 'gpt2'"
    )
    assert Use(Kind.MODEL, "qwen2").mismatch(layout) is None
