"""Whether a file is what its field of the spec is for, from its GGUF header.

llama-server reads an adapter only if its header has the type `adapter` and the model's
architecture. llama.cpp's converters write the architecture `clip` into projectors. A header without
type and architecture is accepted: llama-server may know more.

A draft model must have the vocabulary of the model, or llama-server serves without it. It compares
all tokens; their number and the tokenizer are in the header.
"""

from dataclasses import dataclass
from enum import Enum

from slotkeeper.llamacpp.gguf_layout import Layout, Vocabulary

MAX_DIFFERENCE = 128
"""Of the numbers of tokens, up to which llama-server takes vocabularies for equal: models of a
family differ in tokens that are not used."""

_TOKENIZERS = {"llama": "SPM", "gpt2": "BPE", "bert": "WPM", "t5": "UGM", "rwkv": "RWKV"}
"""Kinds of tokenizers, of which a draft must have the same. Names that are not in the table may be
of any kind."""


class Kind(Enum):
    """What a file contains. The value is used in messages."""

    MODEL = "a model"
    PROJECTOR = "a projector (model.mmproj)"
    ADAPTER = "a LoRA adapter (model.adapters)"


@dataclass(frozen=True)
class Use:
    """What a file is used for."""

    kind: Kind | None = None
    """None if any file is accepted."""
    architecture: str | None = None
    """That of the model, which an adapter must have; None if it is not known."""
    vocabulary: Vocabulary | None = None
    """That of the model, which a draft must have; None for other files, or if it is not known."""

    def mismatch(self, layout: Layout) -> str | None:
        """Return how a header contradicts this, as the end of `the file is …`; None if it does
        not."""
        kind = _kind(layout)
        if self.kind is None or kind is None:
            return None
        if kind is not self.kind:
            return f"{kind.value} according to its GGUF header, not {self.kind.value}"
        if self.vocabulary and layout.vocabulary and _differ(self.vocabulary, layout.vocabulary):
            return (
                f"a draft of another model: it has {layout.vocabulary.tokens} tokens of the "
                f"tokenizer {layout.vocabulary.tokenizer!r}, and the model has "
                f"{self.vocabulary.tokens} of {self.vocabulary.tokenizer!r}"
            )
        if kind is not Kind.ADAPTER or None in {self.architecture, layout.architecture}:
            return None
        if layout.architecture != self.architecture:
            return (
                f"an adapter of another model: that has the architecture {layout.architecture!r}, "
                f"and this model has {self.architecture!r}"
            )
        return None


def _kind(layout: Layout) -> Kind | None:
    if layout.type == "adapter":
        return Kind.ADAPTER
    if layout.type == "mmproj" or layout.architecture == "clip":
        return Kind.PROJECTOR
    return Kind.MODEL if layout.architecture or layout.type == "model" else None


def _differ(one: Vocabulary, other: Vocabulary) -> bool:
    kinds = {_TOKENIZERS.get(each.tokenizer) for each in (one, other)} - {None}
    return len(kinds) > 1 or abs(one.tokens - other.tokens) > MAX_DIFFERENCE
