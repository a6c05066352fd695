"""Models with attention and experts."""

from planned_model import (
    F32,
    MXFP4,
    Q4_K,
    Q6_K,
    Q8_0,
    RMS,
    Attention,
    PlannedModel,
    Tensor,
    blocks,
    common,
    ends,
    experts,
    feed_forward,
)


def qwen3moe() -> PlannedModel:
    """A quarter of Qwen3 30B-A3B: a mixture of experts."""
    layer = [
        *Attention(2048, 32, 4, 128).tensors(Q4_K, norms=True),
        *experts(2048, 768, 128),
    ]
    return PlannedModel(
        "qwen3moe",
        151_936,
        {
            **common(12, 2048, 6144, 40_960),
            "attention.head_count": 32,
            "attention.head_count_kv": 4,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "expert_count": 128,
            "expert_used_count": 8,
            "expert_feed_forward_length": 768,
        },
        [*ends(2048, 151_936, tied=False), *blocks([layer] * 12)],
        RMS,
    )


def deepseek2() -> PlannedModel:
    """A third of DeepSeek V2 Lite: multi-head latent attention, experts, shared experts."""
    attention: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("attn_q_a.weight", (2048, 768), Q4_K),
        ("attn_q_a_norm.weight", (768,), F32),
        ("attn_q_b.weight", (768, 16 * 192), Q4_K),
        ("attn_kv_a_norm.weight", (512,), F32),
        ("attn_kv_a_mqa.weight", (2048, 576), Q4_K),
        ("attn_k_b.weight", (128, 512, 16), Q8_0),
        ("attn_v_b.weight", (512, 128, 16), Q4_K),
        ("attn_output.weight", (2048, 2048), Q4_K),
    ]
    shared: list[Tensor] = [
        ("ffn_gate_shexp.weight", (2048, 2816), Q4_K),
        ("ffn_up_shexp.weight", (2048, 2816), Q4_K),
        ("ffn_down_shexp.weight", (2816, 2048), Q6_K),
    ]
    dense = [*attention, *feed_forward(2048, 10_944)]
    sparse = [*attention, *experts(2048, 1408, 64), *shared]
    return PlannedModel(
        "deepseek2",
        102_400,
        {
            **common(9, 2048, 10_944, 163_840),
            "attention.head_count": 16,
            "attention.head_count_kv": 1,
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
            "attention.q_lora_rank": 768,
            "attention.kv_lora_rank": 512,
            "rope.dimension_count": 64,
            "leading_dense_block_count": 1,
            "expert_count": 64,
            "expert_used_count": 6,
            "expert_shared_count": 2,
            "expert_feed_forward_length": 1408,
        },
        [*ends(2048, 102_400, tied=False), *blocks([dense, *[sparse] * 8])],
        RMS,
    )


def gpt_oss() -> PlannedModel:
    """A third of gpt-oss 20B: a sliding window in every second layer, attention sinks, experts."""
    layer: list[Tensor] = [
        ("attn_norm.weight", (2880,), F32),
        ("post_attention_norm.weight", (2880,), F32),
        ("attn_q.weight", (2880, 4096), Q8_0),
        ("attn_q.bias", (4096,), F32),
        ("attn_k.weight", (2880, 512), Q8_0),
        ("attn_k.bias", (512,), F32),
        ("attn_v.weight", (2880, 512), Q8_0),
        ("attn_v.bias", (512,), F32),
        ("attn_output.weight", (4096, 2880), Q8_0),
        ("attn_output.bias", (2880,), F32),
        ("attn_sinks.weight", (64,), F32),
        ("ffn_gate_inp.weight", (2880, 32), F32),
        ("ffn_gate_inp.bias", (32,), F32),
        ("ffn_gate_exps.weight", (2880, 2880, 32), MXFP4),
        ("ffn_gate_exps.bias", (2880, 32), F32),
        ("ffn_up_exps.weight", (2880, 2880, 32), MXFP4),
        ("ffn_up_exps.bias", (2880, 32), F32),
        ("ffn_down_exps.weight", (2880, 2880, 32), MXFP4),
        ("ffn_down_exps.bias", (2880, 32), F32),
    ]
    return PlannedModel(
        "gpt-oss",
        201_088,
        {
            **common(8, 2880, 2880, 131_072),
            "attention.head_count": 64,
            "attention.head_count_kv": 8,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.sliding_window": 128,
            "rope.dimension_count": 64,
            "expert_count": 32,
            "expert_used_count": 4,
            "expert_feed_forward_length": 2880,
        },
        [
            ("token_embd.weight", (2880, 201_088), Q8_0),
            ("output_norm.weight", (2880,), F32),
            ("output.weight", (2880, 201_088), Q8_0),
            *blocks([layer] * 8),
        ],
        RMS,
    )
