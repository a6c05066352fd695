"""Further models, most of them of 2025 and 2026."""

from planned_model import (
    F32,
    Q4_K,
    Q6_K,
    Q8_0,
    RMS,
    Attention,
    PlannedModel,
    Tensor,
    blocks,
    common,
    delta_net,
    ends,
    experts,
    feed_forward,
    gated_attention,
)


def qwen2() -> PlannedModel:
    """Qwen2.5 1.5B: biases of queries, keys and values."""
    layer: list[Tensor] = [
        *Attention(1536, 12, 2, 128).tensors(Q4_K),
        ("attn_q.bias", (1536,), F32),
        ("attn_k.bias", (256,), F32),
        ("attn_v.bias", (256,), F32),
        *feed_forward(1536, 8960),
    ]
    return PlannedModel(
        "qwen2",
        151_936,
        {
            **common(28, 1536, 8960, 32_768),
            "attention.head_count": 12,
            "attention.head_count_kv": 2,
        },
        [*ends(1536, 151_936, tied=True), *blocks([layer] * 28)],
        RMS,
    )


def mixtral() -> PlannedModel:
    """An eighth of Mixtral 8x7B: large experts in the architecture of Llama."""
    layer = [*Attention(4096, 32, 8, 128).tensors(Q4_K), *experts(4096, 14_336, 8)]
    return PlannedModel(
        "llama",
        32_000,
        {
            **common(4, 4096, 14_336, 32_768),
            "attention.head_count": 32,
            "attention.head_count_kv": 8,
            "rope.dimension_count": 128,
            "expert_count": 8,
            "expert_used_count": 2,
        },
        [*ends(4096, 32_000, tied=False), *blocks([layer] * 4)],
        RMS,
        "llama",
    )


def qwen35() -> PlannedModel:
    """A quarter of Qwen3.5 4B: gated delta nets in three of four layers."""
    dense = [("post_attention_norm.weight", (2560,), F32), *feed_forward(2560, 9216)[1:]]
    linear = delta_net(
        2560, [("ssm_beta.weight", (2560, 32), Q8_0), ("ssm_alpha.weight", (2560, 32), Q8_0)], dense
    )
    full = gated_attention(2560, 1024, dense)
    return PlannedModel(
        "qwen35",
        248_320,
        {
            **common(8, 2560, 9216, 262_144),
            "attention.head_count": 16,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "rope.dimension_count": 64,
            "rope.dimension_sections": [11, 11, 10, 0],
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 4096,
            "ssm.state_size": 128,
            "ssm.time_step_rank": 32,
            "ssm.group_count": 16,
            "full_attention_interval": 4,
        },
        [*ends(2560, 248_320, tied=True), *blocks([linear, linear, linear, full] * 2)],
        RMS,
    )


def glm4moe() -> PlannedModel:
    """A twelfth of GLM-4.5 Air: a layer that predicts further tokens, which is not loaded."""
    attention: list[Tensor] = [
        *Attention(4096, 96, 8, 128).tensors(Q4_K),
        ("attn_q.bias", (12_288,), F32),
        ("attn_k.bias", (1024,), F32),
        ("attn_v.bias", (1024,), F32),
        ("post_attention_norm.weight", (4096,), F32),
    ]
    dense = [*attention, *feed_forward(4096, 10_944)[1:]]
    sparse: list[Tensor] = [
        *attention,
        *experts(4096, 1408, 32)[1:],
        ("exp_probs_b.bias", (32,), F32),
        ("ffn_gate_shexp.weight", (4096, 1408), Q4_K),
        ("ffn_up_shexp.weight", (4096, 1408), Q4_K),
        ("ffn_down_shexp.weight", (1408, 4096), Q8_0),
    ]
    predicting: list[Tensor] = [
        *sparse,
        ("nextn.eh_proj.weight", (8192, 4096), Q4_K),
        ("nextn.enorm.weight", (4096,), F32),
        ("nextn.hnorm.weight", (4096,), F32),
    ]
    return PlannedModel(
        "glm4moe",
        151_552,
        {
            **common(5, 4096, 10_944, 131_072),
            "attention.head_count": 96,
            "attention.head_count_kv": 8,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "rope.dimension_count": 64,
            "leading_dense_block_count": 1,
            "nextn_predict_layers": 1,
            "expert_count": 32,
            "expert_used_count": 8,
            "expert_shared_count": 1,
            "expert_feed_forward_length": 1408,
        },
        [*ends(4096, 151_552, tied=False), *blocks([dense, *[sparse] * 3, predicting])],
        RMS,
    )


def granite_hybrid() -> PlannedModel:
    """A quarter of Granite 4 Tiny: Mamba 2 in nine of ten layers, experts in all."""
    mixture: list[Tensor] = [
        *experts(1536, 512, 62),
        ("ffn_gate_shexp.weight", (1536, 1024), Q4_K),
        ("ffn_up_shexp.weight", (1536, 1024), Q4_K),
        ("ffn_down_shexp.weight", (1024, 1536), Q4_K),
    ]
    state: list[Tensor] = [
        ("attn_norm.weight", (1536,), F32),
        ("ssm_in.weight", (1536, 2 * 3072 + 2 * 128 + 48), Q4_K),
        ("ssm_conv1d.weight", (4, 3072 + 2 * 128), F32),
        ("ssm_conv1d.bias", (3072 + 2 * 128,), F32),
        ("ssm_dt.bias", (48,), F32),
        ("ssm_a", (1, 48), F32),
        ("ssm_d", (1, 48), F32),
        ("ssm_norm.weight", (3072, 1), F32),
        ("ssm_out.weight", (3072, 1536), Q4_K),
        *mixture,
    ]
    attention = [*Attention(1536, 12, 4, 128).tensors(Q4_K), *mixture]
    return PlannedModel(
        "granitehybrid",
        100_352,
        {
            **common(10, 1536, 512, 131_072),
            "attention.head_count": 12,
            "attention.head_count_kv": [4 if number == 5 else 0 for number in range(10)],
            "rope.dimension_count": 128,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 3072,
            "ssm.state_size": 128,
            "ssm.time_step_rank": 48,
            "ssm.group_count": 1,
            "expert_count": 62,
            "expert_used_count": 6,
            "expert_shared_feed_forward_length": 1024,
        },
        [
            *ends(1536, 100_352, tied=True),
            *blocks([attention if number == 5 else state for number in range(10)]),
        ],
        RMS,
    )


def gemma4() -> PlannedModel:
    """Half of Gemma 4 E2B: vectors of each layer, caches that layers share, two sizes of heads."""
    windowed = [number % 5 != 4 for number in range(15)]
    layers = []
    for number, window in enumerate(windowed):
        head = 256 if window else 512
        width = 6144 if number < 5 else 12_288
        layer: list[Tensor] = [
            ("attn_norm.weight", (1536,), F32),
            ("attn_q.weight", (1536, 8 * head), Q4_K),
            ("attn_k.weight", (1536, head), Q4_K),
            ("attn_v.weight", (1536, head), Q6_K),
            ("attn_output.weight", (8 * head, 1536), Q4_K),
            ("attn_q_norm.weight", (head,), F32),
            ("attn_k_norm.weight", (head,), F32),
            ("post_attention_norm.weight", (1536,), F32),
            *feed_forward(1536, width),
            ("post_ffw_norm.weight", (1536,), F32),
            ("inp_gate.weight", (1536, 256), F32),
            ("proj.weight", (256, 1536), F32),
            ("post_norm.weight", (1536,), F32),
        ]
        layers.append(layer)
    return PlannedModel(
        "gemma4",
        262_144,
        {
            **common(15, 1536, 6144, 131_072),
            "feed_forward_length": [6144 if number < 5 else 12_288 for number in range(15)],
            "attention.head_count": 8,
            "attention.head_count_kv": 1,
            "attention.key_length": 512,
            "attention.value_length": 512,
            "attention.key_length_swa": 256,
            "attention.value_length_swa": 256,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [int(window) for window in windowed],
            "attention.shared_kv_layers": 10,
            "embedding_length_per_layer_input": 256,
            "rope.dimension_count": 512,
            "rope.dimension_count_swa": 256,
        },
        [
            *ends(1536, 262_144, tied=True),
            ("per_layer_token_embd.weight", (256 * 15, 262_144), Q4_K),
            ("per_layer_model_proj.weight", (1536, 256 * 15), Q8_0),
            ("per_layer_proj_norm.weight", (256,), F32),
            ("rope_freqs.weight", (256,), F32),
            *blocks(layers),
        ],
        {**RMS, "final_logit_softcapping": 30.0, "rope.freq_base_swa": 10_000.0},
        "llama",
    )
