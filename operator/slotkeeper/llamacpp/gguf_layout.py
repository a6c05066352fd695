"""What a GGUF header states of its file: how long it must be, whether it is one of several, and
what it is for.

A host that has half of a file serves it with a matching length, so that only the header shows it.
"""

from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from slotkeeper.llamacpp.gguf import TOKENS, Header, Truncated, Unreadable

DEFAULT_ALIGNMENT = 32

BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
}
"""Elements and bytes of a block of each data type of ggml. A type that is not in the table counts
as empty, so that a new one is no reason to reject a file."""


class Vocabulary(NamedTuple):
    """The tokens of a model."""

    tokenizer: str
    """Such as llama or gpt2."""
    tokens: int


@dataclass(frozen=True)
class Layout:
    """What a header states of its file."""

    size: int
    """Minimum size of the file in bytes; 0 if the header cannot be read."""
    parts: int
    """Number of files of the model: more than 1 if it is split."""
    part: int = 1
    """Which of them the file is, from 1."""
    tensors: int = 0
    """Number of tensors in the file."""
    model_tensors: int | None = None
    """Number of tensors in all files of a split model; None if the header does not state it."""
    type: str | None = None
    """Such as model, adapter or mmproj; None if the header does not state it."""
    architecture: str | None = None
    """Such as llama; clip for a projector."""
    vocabulary: Vocabulary | None = None
    """None if the header does not state it."""
    truncated: bool = False
    """Whether the header continues after the end of what was read."""


def read_layout(head: bytes | BinaryIO) -> Layout:
    """Parse the header at the beginning of a file. Raises only OSError of the file."""
    header = Header(head)
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    data = 0
    truncated = False
    try:
        # Pairs before an unreadable one are kept.
        for key, value in header.pairs():
            if isinstance(value, int):
                numbers[key] = value
            elif isinstance(value, str):
                texts[key] = value
        for tensor in header.tensors():
            elements, size = BLOCKS.get(tensor.type, (1, 0))
            data = max(data, tensor.offset + tensor.elements // elements * size)
    except Truncated:
        truncated = True
        size = header.size + 1
    except Unreadable:
        size = 0
    else:
        alignment = numbers.get("general.alignment", DEFAULT_ALIGNMENT)
        size = header.position
        if data and alignment >= 1:
            size = -(-header.position // alignment) * alignment + data
    return Layout(
        size=size,
        parts=numbers.get("split.count", 1),
        part=numbers.get("split.no", 0) + 1,
        tensors=header.tensor_count,
        model_tensors=numbers.get("split.tensors.count"),
        type=texts.get("general.type"),
        architecture=texts.get("general.architecture"),
        vocabulary=_vocabulary(texts.get("tokenizer.ggml.model"), numbers.get(TOKENS)),
        truncated=truncated,
    )


def _vocabulary(tokenizer: str | None, tokens: int | None) -> Vocabulary | None:
    return None if tokenizer is None or tokens is None else Vocabulary(tokenizer, tokens)
