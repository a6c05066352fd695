"""The recurrent part of a layer: state-space models, linear attention, and short convolutions."""

from dataclasses import dataclass

from slotkeeper.llamacpp.memory.keys import Keys, Shapes, rows

_TENSORS = ("ssm_", "time_mix_", "shortconv.")


@dataclass(frozen=True)
class Recurrent:
    """The recurrent part of a layer."""

    state: int = 0
    """Numbers of a slot's state, of the convolution and of the rest."""
    activations: int = 0
    """Activations besides states."""
    freed: int = 0
    """Those of them that are free again when states are copied."""


def is_recurrent(shapes: Shapes) -> bool:
    """Whether a layer with tensors of these shapes has a recurrent part."""
    return any(name.startswith(_TENSORS) for name in shapes)


def recurrent(keys: Keys, shapes: Shapes) -> Recurrent:
    """Return the recurrent part of a layer. Raises UnplannableError."""
    if not is_recurrent(shapes):
        return Recurrent()
    embedding = keys.size("embedding_length")
    if head := keys.size("wkv.head_size"):
        state = embedding * (keys.size("token_shift_count", default=2) + head)
        return Recurrent(state, 15 * embedding, embedding)
    if cached := keys.size("shortconv.l_cache"):
        return Recurrent(embedding * (cached - 1), 5 * embedding, embedding)
    past = max(keys.size("ssm.conv_kernel") - 1, 0)
    if head := keys.size("kda.head_dim"):
        inner = keys.size("attention.head_count") * head
        return Recurrent((past or 3) * 3 * inner + inner * head, 7 * inner, embedding + inner)
    return _state_space(keys, shapes, past)


def _state_space(keys: Keys, shapes: Shapes, past: int) -> Recurrent:
    embedding = keys.size("embedding_length")
    inner, size = keys.size("ssm.inner_size"), keys.size("ssm.state_size")
    state = past * (inner + 2 * keys.size("ssm.group_count") * size) + inner * size
    # In Mamba 2 and gated delta nets, the convolution is of queries and keys too.
    convolution = shapes.get("ssm_conv1d.weight", (0,))[-1]
    if "ssm_x.weight" in shapes:
        activations = 5 * inner
    elif joint := rows(shapes, "ssm_in"):
        activations = joint + convolution + inner + 3 * embedding // 2
    else:
        activations = rows(shapes, "attn_qkv") + rows(shapes, "attn_gate") + convolution
    return Recurrent(state, activations, embedding + inner)
