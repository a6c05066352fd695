"""The buffer of activations, which llama.cpp reserves for the largest batch.

ggml's allocator reuses the memory of tensors that are not needed any more, so the buffer is as
large as the largest step of any layer: attention, recurrent part, or feed-forward part. The number
of activations of each step is from measurements of llama.cpp's CPU backend, whose graphs are those
of the other backends.
"""

from collections.abc import Iterable

from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer
from slotkeeper.llamacpp.memory.load import Load

_BYTES = 4
"""Of an activation."""

_INDEX_BYTES = 8
"""Of the index of a cell."""

_EMBEDDINGS = 5
"""Vectors of all tokens that are kept beside those of a step: the input of the batch, the input and
the sum of the layer, and the space that they leave between them."""

_ATTENTION_EMBEDDINGS = 3
"""The same for the attention without flash attention."""


def layer_bytes(model: Dimensions, layer: Layer, load: Load) -> int:
    """Return the bytes of the largest step of a layer, without the inputs of the batch."""
    return max(_steps(model, layer, load)) * _BYTES


def copied_layer_bytes(model: Dimensions, layer: Layer, load: Load, kv_cache: int) -> int:
    """Return the same where a GPU computes a layer that is in main memory: the weights are copied
    to it, one tensor at a time, and for the attention the KV cache of the layer."""
    feed_forward, recurrent, attention = (
        numbers * _BYTES for numbers in _steps(model, layer, load)
    )
    return max(max(feed_forward, recurrent) + layer.largest_tensor, attention + kv_cache)


def _steps(model: Dimensions, layer: Layer, load: Load) -> tuple[int, int, int]:
    """Return the activations of the feed-forward part, the recurrent part, and the attention."""
    kept = _kept(model)
    feed_forward = kept + layer.feed_forward
    if not load.flash_attention:
        # What the attention leaves cannot be used again.
        feed_forward += layer.key + layer.value
        feed_forward += layer.query if layer.normalizes_attention else 0
    elif model.parallel and _is_quantized(load):
        feed_forward += model.embedding
    return (
        feed_forward * load.tokens,
        (kept + layer.recurrent) * load.tokens + _states(layer, load),
        (kept + layer.flash_attention) * load.tokens
        if load.flash_attention
        else _attention(model, layer, load),
    )


def output_bytes(model: Dimensions, load: Load) -> int:
    """Return the bytes of the step that turns the vectors of a batch into tokens."""
    kept = _kept(model) * load.tokens * _BYTES
    return kept + model.vocabulary * load.slots * _BYTES


def only_output_bytes(model: Dimensions, load: Load) -> int:
    """Return the same where no layer is: only the last vector of each slot comes there."""
    return (_kept(model) + model.vocabulary) * load.slots * _BYTES


def input_bytes(model: Dimensions, layers: Iterable[Layer], load: Load) -> int:
    """Return the bytes of the attention masks of a batch for these layers of the model.

    Each token has a mask of the cells of its slot.
    """
    full, windows = _caches(layers)
    number = 2 if load.flash_attention else 4
    if model.caches:
        cells = full * load.cells + sum(map(load.window_cells, windows))
    else:
        cells = load.tokens * (2 if windows else full)
    return cells * load.tokens * number


def index_bytes(model: Dimensions, layers: Iterable[Layer], load: Load) -> int:
    """Return the bytes of the cells' indices of a batch for these layers of the model: without
    flash attention, there is one of each number of the values."""
    if load.flash_attention or not model.caches:
        return 0
    full, windows = _caches(layers)
    return (full + len(windows)) * model.largest_value * load.tokens * _INDEX_BYTES


def _caches(layers: Iterable[Layer]) -> tuple[bool, set[int]]:
    """Return whether any layer attends to the whole context, and the windows of the others. Each
    has masks and indices of its own."""
    attending = [layer for layer in layers if layer.attends or layer.heads]
    return (
        any(not layer.window for layer in attending),
        {layer.window for layer in attending if layer.window},
    )


def embedding_bytes(model: Dimensions, load: Load) -> int:
    """Return the bytes of the vectors of a batch."""
    return load.tokens * model.embedding * _BYTES


def layer_input_bytes(model: Dimensions, load: Load) -> int:
    """Return the bytes of the inputs of a batch's layers."""
    return load.tokens * model.layer_inputs * _BYTES


def logits_bytes(model: Dimensions, load: Load) -> int:
    """Return the bytes of the results of a batch: llama-server requests one token per slot."""
    vectors = model.embedding if load.embeddings else 0
    return (model.vocabulary + vectors) * load.slots * _BYTES


def _kept(model: Dimensions) -> int:
    """Return the activations that are kept beside those of a step. The inputs of layers are kept as
    they are computed, and in the order of the layers."""
    return _EMBEDDINGS * model.embedding + 2 * model.layer_inputs


def _states(layer: Layer, load: Load) -> int:
    """Return the numbers of the states in computing: those of all slots, and a copy of them unless
    that fits into the space of activations."""
    states = layer.state * load.slots
    return states if states <= layer.freed * load.tokens else 2 * states


def _attention(model: Dimensions, layer: Layer, load: Load) -> int:
    """Return the activations of the attention without flash attention, whose logits are those of
    each token with each cell."""
    if not model.caches:
        cells = load.tokens
    else:
        cells = load.window_cells(layer.window) if layer.window else load.cells
    embeddings = _ATTENTION_EMBEDDINGS + (layer.normalizes_attention or layer.state > 0)
    others = embeddings * model.embedding + model.layer_inputs + layer.attention
    # The values in the keys are copied, into the space of the queries if that is enough.
    values = layer.latent * cells * load.slots // 2
    copied = values if values > layer.query * load.tokens else 0
    return (layer.heads * cells + others) * load.tokens + copied


def _is_quantized(load: Load) -> bool:
    return load.kv_cache_type not in {"f32", "f16", "bf16"}
