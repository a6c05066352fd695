"""Models with attention, and one feed-forward part in each layer."""

from planned_model import (
    F16,
    F32,
    Q4_K,
    Q5_0,
    Q6_K,
    Q8_0,
    RMS,
    Attention,
    PlannedModel,
    Tensor,
    blocks,
    common,
    ends,
    feed_forward,
)


def llama() -> PlannedModel:
    """Llama 3.2 1B: grouped-query attention."""
    layer = [*Attention(2048, 32, 8, 64).tensors(Q4_K), *feed_forward(2048, 8192)]
    return PlannedModel(
        "llama",
        128_256,
        {
            **common(16, 2048, 8192, 131_072),
            "attention.head_count": 32,
            "attention.head_count_kv": 8,
            "rope.dimension_count": 64,
        },
        [*ends(2048, 128_256, tied=True), *blocks([layer] * 16)],
        RMS,
    )


def gemma() -> PlannedModel:
    """Gemma 2B: multi-query attention, with one head of keys and values."""
    layer = [*Attention(2048, 8, 1, 256).tensors(Q4_K), *feed_forward(2048, 16_384)]
    return PlannedModel(
        "gemma",
        256_000,
        {
            **common(18, 2048, 16_384, 8192),
            "attention.head_count": 8,
            "attention.head_count_kv": 1,
            "attention.key_length": 256,
            "attention.value_length": 256,
        },
        [*ends(2048, 256_000, tied=True), *blocks([layer] * 18)],
        RMS,
        "llama",
    )


def gemma3() -> PlannedModel:
    """Gemma 3 4B: a sliding window in five of six layers."""
    layer = [
        *Attention(2560, 8, 4, 256).tensors(Q4_K, norms=True),
        ("post_attention_norm.weight", (2560,), F32),
        *feed_forward(2560, 10_240),
        ("post_ffw_norm.weight", (2560,), F32),
    ]
    return PlannedModel(
        "gemma3",
        262_144,
        {
            **common(34, 2560, 10_240, 131_072),
            "attention.head_count": 8,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 1024,
        },
        [*ends(2560, 262_144, tied=True), *blocks([layer] * 34)],
        RMS,
        "llama",
    )


def gemma3_270m() -> PlannedModel:
    """The real Gemma 3 270M in Q4_K_M, with its data types."""
    layers = []
    for number in range(18):
        better = number in {0, 1, 4, 7, 10, 13, 15, 16, 17}
        layer: list[Tensor] = [
            ("attn_norm.weight", (640,), F32),
            ("attn_q.weight", (640, 1024), Q5_0),
            ("attn_k.weight", (640, 256), Q5_0),
            ("attn_v.weight", (640, 256), Q8_0 if better else Q5_0),
            ("attn_output.weight", (1024, 640), Q4_K),
            ("attn_q_norm.weight", (256,), F32),
            ("attn_k_norm.weight", (256,), F32),
            ("post_attention_norm.weight", (640,), F32),
            ("ffn_norm.weight", (640,), F32),
            ("ffn_gate.weight", (640, 2048), Q5_0),
            ("ffn_up.weight", (640, 2048), Q5_0),
            ("ffn_down.weight", (2048, 640), Q6_K if better else Q4_K),
            ("post_ffw_norm.weight", (640,), F32),
        ]
        layers.append(layer)
    return PlannedModel(
        "gemma3",
        262_144,
        {
            **common(18, 640, 2048, 32_768),
            "attention.head_count": 4,
            "attention.head_count_kv": 1,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 512,
        },
        [
            ("token_embd.weight", (640, 262_144), Q8_0),
            ("output_norm.weight", (640,), F32),
            *blocks(layers),
        ],
        RMS,
        "llama",
    )


def qwen3() -> PlannedModel:
    """Qwen3 1.7B: more query numbers than the embedding has."""
    layer = [*Attention(2048, 16, 8, 128).tensors(Q4_K, norms=True), *feed_forward(2048, 6144)]
    return PlannedModel(
        "qwen3",
        151_936,
        {
            **common(28, 2048, 6144, 40_960),
            "attention.head_count": 16,
            "attention.head_count_kv": 8,
            "attention.key_length": 128,
            "attention.value_length": 128,
        },
        [*ends(2048, 151_936, tied=True), *blocks([layer] * 28)],
        RMS,
    )


def phi3() -> PlannedModel:
    """Phi-3 mini: joint tensors of queries, keys and values, and a window that is not used."""
    layer: list[Tensor] = [
        ("attn_norm.weight", (3072,), F32),
        ("attn_qkv.weight", (3072, 9216), Q4_K),
        ("attn_output.weight", (3072, 3072), Q4_K),
        ("ffn_norm.weight", (3072,), F32),
        ("ffn_up.weight", (3072, 16_384), Q4_K),
        ("ffn_down.weight", (8192, 3072), Q6_K),
    ]
    return PlannedModel(
        "phi3",
        32_064,
        {
            **common(32, 3072, 8192, 4096),
            "attention.head_count": 32,
            "attention.head_count_kv": 32,
            "attention.sliding_window": 2047,
            "rope.dimension_count": 96,
        },
        [*ends(3072, 32_064, tied=False), *blocks([layer] * 32)],
        RMS,
        "llama",
    )


def nomic_bert() -> PlannedModel:
    """nomic-embed-text v1.5: embeddings, without a KV cache."""
    layer: list[Tensor] = [
        ("attn_qkv.weight", (768, 2304), F16),
        ("attn_output.weight", (768, 768), F16),
        ("attn_output_norm.weight", (768,), F32),
        ("attn_output_norm.bias", (768,), F32),
        ("ffn_up.weight", (768, 3072), F16),
        ("ffn_gate.weight", (768, 3072), F16),
        ("ffn_down.weight", (3072, 768), F16),
        ("layer_output_norm.weight", (768,), F32),
        ("layer_output_norm.bias", (768,), F32),
    ]
    return PlannedModel(
        "nomic-bert",
        30_522,
        {
            **common(12, 768, 3072, 2048),
            "attention.head_count": 12,
            "pooling_type": 1,
        },
        [
            ("token_embd.weight", (768, 30_522), F16),
            ("token_types.weight", (768, 2), F32),
            ("token_embd_norm.weight", (768,), F32),
            ("token_embd_norm.bias", (768,), F32),
            *blocks([layer] * 12),
        ],
        {"attention.layer_norm_epsilon": 1e-12, "rope.freq_base": 1000.0},
        "bert",
        {"attention.causal": False},
    )


def command_r() -> PlannedModel:
    """An eighth of Command R7B's predecessor: a layer's two parts from the same input."""
    layer = [
        each
        for each in [*Attention(4096, 32, 8, 128).tensors(Q4_K), *feed_forward(4096, 14_336)]
        if each[0] != "ffn_norm.weight"
    ]
    return PlannedModel(
        "command-r",
        256_000,
        {
            **common(8, 4096, 14_336, 131_072),
            "attention.head_count": 32,
            "attention.head_count_kv": 8,
        },
        [*ends(4096, 256_000, tied=True), *blocks([layer] * 8)],
        {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.0625},
    )


def starcoder2() -> PlannedModel:
    """Half of StarCoder2 3B: biases, and a feed-forward part without a gate."""
    layer: list[Tensor] = [
        *Attention(3072, 24, 2, 128).tensors(Q4_K),
        ("attn_norm.bias", (3072,), F32),
        ("attn_q.bias", (3072,), F32),
        ("attn_k.bias", (256,), F32),
        ("attn_v.bias", (256,), F32),
        ("attn_output.bias", (3072,), F32),
        ("ffn_norm.weight", (3072,), F32),
        ("ffn_norm.bias", (3072,), F32),
        ("ffn_up.weight", (3072, 12_288), Q4_K),
        ("ffn_up.bias", (12_288,), F32),
        ("ffn_down.weight", (12_288, 3072), Q4_K),
        ("ffn_down.bias", (3072,), F32),
    ]
    return PlannedModel(
        "starcoder2",
        49_152,
        {
            **common(15, 3072, 12_288, 16_384),
            "attention.head_count": 24,
            "attention.head_count_kv": 2,
        },
        [
            *ends(3072, 49_152, tied=True),
            ("output_norm.bias", (3072,), F32),
            *blocks([layer] * 15),
        ],
        {"attention.layer_norm_epsilon": 1e-5},
    )


def gemma2() -> PlannedModel:
    """Half of Gemma 2 2B: a limit of the attention's logits, a window in every second layer."""
    layer = [
        *Attention(2304, 8, 4, 256).tensors(Q4_K),
        ("post_attention_norm.weight", (2304,), F32),
        *feed_forward(2304, 9216),
        ("post_ffw_norm.weight", (2304,), F32),
    ]
    return PlannedModel(
        "gemma2",
        256_000,
        {
            **common(13, 2304, 9216, 8192),
            "attention.head_count": 8,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 4096,
        },
        [*ends(2304, 256_000, tied=True), *blocks([layer] * 13)],
        {**RMS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        "llama",
    )
