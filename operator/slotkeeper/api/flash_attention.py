"""Settings with which llama-server requires flash attention."""

QUANTIZED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")

FOR_CACHE = (
    "flashAttention must not be disabled with a quantized kvCacheType, which llama-server "
    "does not support: set flashAttention: auto, or kvCacheType: f16"
)
FOR_SPLIT = (
    "flashAttention must not be disabled with gpu.splitMode: tensor, which llama-server does "
    "not support: set flashAttention: auto, or gpu.splitMode: layer"
)


def allows_cache(flash_attention: str, kv_cache_type: str) -> bool:
    """Whether the KV cache may have this type."""
    return kv_cache_type not in QUANTIZED or flash_attention != "disabled"


def allows_split(flash_attention: str, split_mode: str | None) -> bool:
    """Whether the model may be split across GPUs in this way."""
    return split_mode != "tensor" or flash_attention != "disabled"
