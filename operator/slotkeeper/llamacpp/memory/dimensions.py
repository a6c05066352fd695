"""What a header states of a model's size, as far as memory depends on it."""

from dataclasses import dataclass
from functools import cached_property

MAX_LAYERS = 512
"""As in llama.cpp."""

MAX_NUMBER = 2**31 - 1
"""Of any dimension."""

MAX_BYTES = 2**50
"""Of all tensors: a petabyte, more than any model has."""


class UnplannableError(ValueError):
    """Memory cannot be planned; the text is the reason, and the end of a message."""


@dataclass(frozen=True)
class Layer:
    """A block of the model. Sizes of activations are numbers (of 32 bits) for each token."""

    weights: int
    """Bytes of all of its tensors."""
    experts: int = 0
    """Bytes of those of `weights` that are the matrices of experts."""
    largest_tensor: int = 0
    """Bytes."""
    heads: int = 0
    """Attention heads."""
    key: int = 0
    """Size of the keys of a token in the KV cache; 0 without attention."""
    value: int = 0
    """Size of the values of a token in the KV cache; 0 also with latent attention (MLA), where
    values are a part of the keys."""
    latent: int = 0
    """Size of the values in the keys, with latent attention."""
    query: int = 0
    """Size of the queries of all heads."""
    attention: int = 0
    """Activations of the attention, besides its logits."""
    flash_attention: int = 0
    """Activations of the attention with flash attention."""
    window: int = 0
    """Tokens of the sliding window; 0 if each token attends to the whole context."""
    state: int = 0
    """Numbers of the recurrent state of a slot."""
    recurrent: int = 0
    """Activations of the recurrent part, besides its states."""
    freed: int = 0
    """Those of them that are free again when states are copied."""
    normalizes_attention: bool = False
    """Whether the result of the attention is normalized before it is added."""
    feed_forward: int = 0
    """Activations of the feed-forward part, or of the experts of a token, at their peak."""

    @property
    def attends(self) -> bool:
        """Whether it has attention."""
        return self.key > 0


@dataclass(frozen=True)
class Dimensions:
    """A model."""

    architecture: str
    layers: tuple[Layer, ...]
    embedding: int
    """Size of the vector of a token."""
    vocabulary: int
    trained_context: int
    """Tokens."""
    table: int
    """Bytes of the table of the tokens' vectors."""
    tied: bool
    """Whether the table is used for the output too: a GPU that computes it needs a copy."""
    input_weights: int
    """Bytes of the other tensors that turn tokens into vectors. As the table, they remain in main
    memory."""
    output_weights: int
    """Bytes of the tensors that turn vectors into tokens, without the table."""
    layer_inputs: int = 0
    """Activations that are inputs of the layers, besides the vector of the token."""
    caches: bool = True
    """Whether there is a KV cache: not in encoders, which compute an input at once."""
    parallel: bool = False
    """Whether attention and feed-forward part of a layer have the same input."""

    @cached_property
    def weights(self) -> int:
        """Bytes of all tensors that are loaded."""
        ends = self.table + self.input_weights + self.output_weights
        return ends + sum(layer.weights for layer in self.layers)

    @cached_property
    def largest_value(self) -> int:
        """Size of the values of a token in the KV cache of the layer with the largest ones."""
        return max((layer.value for layer in self.layers), default=0)
