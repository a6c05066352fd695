"""What llama.cpp's architectures differ in, as far as memory depends on it and no header states it.

From the functions `load_arch_hparams` of llama.cpp's src/models, and `create_memory` of
src/llama-model.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Which layers have a sliding window, unless the header states it."""

    period: int
    """One of so many layers attends to the whole context; 0 if the header must state which."""
    first: bool = False
    """Whether that is the first of them, rather than the last."""
    default: int = 0
    """Tokens, if the header does not state them."""
    forced: int = 0
    """Tokens, whatever the header states, unless it states 0."""


WINDOWS: Mapping[str, Window] = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, first=True),
    "exaone-moe": Window(4, default=128),
    "gemma2": Window(2, default=4096),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gemma4": Window(0),
    "gpt-oss": Window(2),
    "granite-swa": Window(0),
    "laguna": Window(4, first=True),
    "llama4": Window(4, default=8192, forced=8192),
    "maple": Window(0),
    "mellum": Window(4),
    "mimo2": Window(0),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, first=True, forced=4096),
    "spark2-5": Window(0),
    "step35": Window(0),
}
"""Architectures whose window llama.cpp uses. Others may state one that it ignores."""

WITHOUT_CACHE = frozenset(
    {
        "bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "eurobert",
        "modern-bert",
        "gemma-embedding",
        "dream",
        "llada",
        "llada-moe",
        "rnd1",
    }
)
"""Architectures without a KV cache."""

BOTH_IN_A_LAYER = frozenset({"falcon-h1"})
"""Architectures whose layers have attention and a recurrent part side by side."""

OTHER_MEMORY = frozenset(
    {
        "clip",
        "dflash",
        "deepseek32",
        "deepseek4",
        "dots3note",
        "eagle3",
        "gemma4-assistant",
        "glm-dsa",
        "glm5-next",
        "hy-v4",
        "minimax-m3",
        "qwen4exp",
        "t5",
        "t5encoder",
        "wavtokenizer-dec",
    }
)
"""Architectures whose memory is not planned: with caches of another kind, such as of an indexer, or
no models on their own."""

MEASURED = frozenset(
    {
        "llama",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma4",
        "glm4moe",
        "granitehybrid",
        "qwen2",
        "qwen3",
        "qwen35",
        "qwen3moe",
        "qwen3next",
        "deepseek2",
        "mamba",
        "jamba",
        "falcon-h1",
        "lfm2",
        "rwkv7",
        "phi3",
        "gpt-oss",
        "starcoder2",
        "command-r",
        "nomic-bert",
    }
)
"""Architectures whose plans are compared with what llama-server allocates, by the tests."""
