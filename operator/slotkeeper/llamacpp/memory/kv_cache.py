"""The KV cache, and the recurrent states."""

from slotkeeper.llamacpp.kv_cache import BLOCKS
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer, UnplannableError
from slotkeeper.llamacpp.memory.load import Load

STATE_BYTES = 4
"""Of a number of a recurrent state."""


def cache_bytes(model: Dimensions, layer: Layer, load: Load) -> int:
    """Return the bytes of a layer's KV cache, and of its states, of all slots. Raises
    UnplannableError if the type of the cache does not suit the layer.

    Each slot has its own cells, because llama-server is started with --no-kv-unified. A layer with
    a sliding window keeps the window and the tokens that are computed at once.
    """
    states = layer.state * STATE_BYTES * load.slots
    if not model.caches or not layer.attends:
        return states
    cells = load.window_cells(layer.window) if layer.window else load.cells
    value = layer.value
    if not load.flash_attention and value:
        # Without flash attention the values are stored transposed, all layers' with the same size.
        value = model.largest_value
    per_token = _row(layer.key, load.kv_cache_type) + _row(value, load.kv_cache_type)
    return states + per_token * cells * load.slots


def _row(numbers: int, kind: str) -> int:
    elements, size = BLOCKS[kind]
    if numbers % elements:
        raise UnplannableError(
            f"its keys or values have {numbers} numbers, which a KV cache of type {kind} cannot "
            f"store: they must be a multiple of {elements}"
        )
    return numbers // elements * size
