"""How llama-server loads a model: the settings on which memory depends."""

from dataclasses import dataclass, field, replace

from slotkeeper.llamacpp.argv import ALL_LAYERS, BATCH_TOKENS
from slotkeeper.llamacpp.kv_cache import BITS_PER_VALUE
from slotkeeper.llamacpp.memory.dimensions import UnplannableError

CONTEXT_STEP = 256
"""llama.cpp rounds the context of a slot up to a multiple of this."""

MAX_SLOTS = 4096
MAX_CONTEXT = 2**31 - 1

MIB = 1024**2

GPU_OVERHEAD = 500 * MIB
"""What a GPU needs besides llama.cpp's buffers: the driver's context of a process, the code of the
kernels, and temporary memory of the libraries. It depends on GPU and driver, so this is an
allowance: the default of gpustack/gguf-parser-go for the same purpose. llama.cpp's own `--fit`
leaves 1024 MiB of each GPU free."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a replica, those of workers first, as llama.cpp orders them."""

    memory: tuple[int, ...]
    """Bytes of each."""
    layers: int = ALL_LAYERS
    """Layers on them. The output counts as one."""
    split_mode: str = "layer"
    shares: tuple[float, ...] = ()
    """Proportion of each; empty for that of their memory."""
    cpu_expert_layers: int = 0
    """So many of the first layers have their experts in main memory."""
    draft_layers: int = ALL_LAYERS
    """Layers of the draft on them. The output counts as one."""
    remote: int = 0
    """So many of the first GPUs are those of workers."""

    @property
    def first_local(self) -> int | None:
        """Index of the GPU that computes what is in main memory; None if there is none."""
        return self.remote if self.remote < len(self.memory) else None


@dataclass(frozen=True)
class Load:
    """Settings of llama-server. Raises UnplannableError if they are out of bounds."""

    slots: int
    context_per_slot: int
    """Tokens."""
    kv_cache_type: str = "f16"
    flash_attention: bool = True
    """With `auto`, llama-server uses it where the GPU can."""
    batch: int = 2048
    """Tokens per batch: llama-server's default."""
    micro_batch: int = BATCH_TOKENS
    """Tokens that are computed at once: llama-server's default."""
    embeddings: bool = False
    """Whether vectors are returned instead of text."""
    gpus: Gpus = field(default_factory=lambda: Gpus(()))

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= MAX_SLOTS:
            raise UnplannableError(f"the number of slots must be from 1 to {MAX_SLOTS}")
        if not 1 <= self.context_per_slot <= MAX_CONTEXT:
            raise UnplannableError(f"the context must be from 1 to {MAX_CONTEXT} tokens")
        if self.kv_cache_type not in BITS_PER_VALUE:
            raise UnplannableError(f"{self.kv_cache_type!r} is not a type of the KV cache")
        if not 1 <= self.micro_batch <= self.batch <= MAX_CONTEXT:
            raise UnplannableError("a batch must have from 1 token to the tokens of the context")

    def with_context(self, tokens: int) -> "Load":
        """Return the same with another context of a slot, which with embeddings is a batch."""
        if self.embeddings:
            return replace(self, context_per_slot=tokens, batch=tokens, micro_batch=tokens)
        return replace(self, context_per_slot=tokens)

    @property
    def cells(self) -> int:
        """Tokens that a slot has space for."""
        return _rounded(self.context_per_slot, CONTEXT_STEP)

    @property
    def tokens(self) -> int:
        """Tokens that are computed at once, at most."""
        return _rounded(self._tokens, self.slots)

    def window_cells(self, window: int) -> int:
        """Return the tokens that a slot has space for in layers with a sliding window: the window
        and those that are computed at once."""
        return _rounded(min(self.cells, window + self._tokens), CONTEXT_STEP)

    @property
    def _tokens(self) -> int:
        return min(self.cells * self.slots, self.batch, self.micro_batch)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
