"""The dimensions of one layer, from its tensors and the model's keys."""

from collections.abc import Mapping
from dataclasses import replace

from slotkeeper.llamacpp.gguf import Tensor
from slotkeeper.llamacpp.memory.architectures import BOTH_IN_A_LAYER, WINDOWS, Window
from slotkeeper.llamacpp.memory.dimensions import MAX_NUMBER, Layer, UnplannableError
from slotkeeper.llamacpp.memory.keys import Keys, Shapes, rows
from slotkeeper.llamacpp.memory.recurrent import is_recurrent, recurrent

_ALL_LAYERS = MAX_NUMBER

_NORMS = {"post_attention_norm.weight", "ffn_norm.weight"}


def layer(
    keys: Keys, number: int, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> Layer:
    """Return the layer with this number, of tensors by name, and their sizes in bytes. Raises
    UnplannableError."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    state = recurrent(keys, shapes)
    described = Layer(
        weights=sum(sizes.values()),
        experts=sum(size for name, size in sizes.items() if "_exps." in name),
        largest_tensor=max(sizes.values(), default=0),
        state=state.state,
        recurrent=state.activations,
        freed=state.freed,
        normalizes_attention=shapes.keys() >= _NORMS,
        feed_forward=_feed_forward(keys, number, shapes),
    )
    return _with_attention(described, keys, number, shapes)


def _with_attention(layer: Layer, keys: Keys, number: int, shapes: Shapes) -> Layer:
    names = ("attn_k.weight", "attn_qkv.weight", "attn_kv_a_mqa.weight")
    if not any(name in shapes for name in names):
        return layer
    if is_recurrent(shapes) and keys.architecture not in BOTH_IN_A_LAYER:
        return layer
    heads = keys.size("attention.head_count", layer=number)
    if heads == 0:
        raise UnplannableError(f"layer {number} has attention, and no attention heads")
    embedding = keys.number("embedding_length", 1, MAX_NUMBER)
    window = _window(keys, number)
    head = _head(keys, "key", embedding // heads, window)
    value_head = _head(keys, "value", embedding // heads, window)
    query = heads * head
    if projected := heads * keys.size("attention.key_length_mla"):
        output = heads * value_head
        return replace(
            layer,
            heads=heads,
            key=head,
            latent=value_head,
            query=query,
            attention=2 * embedding + query + output + projected,
            flash_attention=2 * query + projected,
        )
    key_heads = keys.size("attention.head_count_kv", layer=number, default=heads)
    key = rows(shapes, "attn_k") or key_heads * head
    value = rows(shapes, "attn_v") or key_heads * value_head
    joint = "attn_qkv.weight" in shapes
    cached = number < _layers_with_cache(keys)
    return replace(
        layer,
        heads=heads,
        key=key if cached else 0,
        value=value if cached else 0,
        query=query,
        attention=(2 if joint else 3) * query + key + value,
        flash_attention=2 * query + key + value,
        window=window,
    )


def _head(keys: Keys, kind: str, default: int, window: int) -> int:
    """Return the size of a head's keys or values."""
    size = keys.size(f"attention.{kind}_length", default=default)
    return keys.size(f"attention.{kind}_length_swa", default=size) if window else size


def _layers_with_cache(keys: Keys) -> int:
    """Return the number of the first layer that uses the KV cache of another one."""
    if keys.architecture == "gemma3n":
        return 20
    if keys.architecture == "gemma4":
        layers = keys.size("block_count")
        return layers - keys.size("attention.shared_kv_layers")
    return _ALL_LAYERS


def _window(keys: Keys, number: int) -> int:
    """Return the sliding window of a layer in tokens; 0 if it has none."""
    if keys.architecture == "lfm2":
        return keys.size("attention.sliding_window")
    window = WINDOWS.get(keys.architecture)
    if keys.architecture == "exaone4" and keys.size("block_count") == 64:
        window = Window(4, default=4096)
    if window is None:
        return 0
    tokens = keys.size("attention.sliding_window", default=window.default)
    if tokens == 0:
        return 0
    pattern = keys.values.get(f"{keys.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        applies = bool(pattern[number]) if number < len(pattern) else False
    else:
        period = keys.size("attention.sliding_window_pattern", default=window.period)
        last = 0 if window.first else period - 1
        applies = period == 0 or number % period != last
    return (window.forced or tokens) if applies else 0


def _feed_forward(keys: Keys, number: int, shapes: Shapes) -> int:
    width = rows(shapes, "ffn_up") or rows(shapes, "channel_mix_key")
    # A joint matrix of up and gate has twice the width of what down expects.
    joint = width == 2 * shapes.get("ffn_down.weight", (0,))[0]
    gated = "ffn_gate.weight" in shapes
    dense = (3 * width // 2 if joint else 3 * width if gated else width) if width else 0
    return max(dense, _experts(keys, number, shapes))


def _experts(keys: Keys, number: int, shapes: Shapes) -> int:
    width = shapes.get("ffn_down_exps.weight", (0,))[0]
    if width == 0:
        return 0
    used = keys.number("expert_used_count", 1, 4096, layer=number)
    embedding = keys.size("embedding_length")
    # Where the results of the experts fit into the space of up and gate, they are there.
    return used * (3 * width + (embedding if embedding > 2 * width else 0))
