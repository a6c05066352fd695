"""Models with recurrent layers, some of which have attention in others."""

from planned_model import (
    F16,
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


def mamba() -> PlannedModel:
    """Mamba 1.4B: a recurrent state instead of a KV cache."""
    layer: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("ssm_in.weight", (2048, 8192), Q4_K),
        ("ssm_conv1d.weight", (4, 4096), F32),
        ("ssm_conv1d.bias", (4096,), F32),
        ("ssm_x.weight", (4096, 128 + 2 * 16), Q4_K),
        ("ssm_dt.weight", (128, 4096), F16),
        ("ssm_dt.bias", (4096,), F32),
        ("ssm_a", (16, 4096), F32),
        ("ssm_d", (4096,), F32),
        ("ssm_out.weight", (4096, 2048), Q4_K),
    ]
    return PlannedModel(
        "mamba",
        50_280,
        {
            **common(48, 2048, 0, 1_048_576),
            "attention.head_count": 0,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 4096,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 128,
        },
        [*ends(2048, 50_280, tied=True), *blocks([layer] * 48)],
        RMS,
    )


def lfm2() -> PlannedModel:
    """LFM2 1.2B: short convolutions in ten of sixteen layers, attention in the others."""
    convolution: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("shortconv.conv.weight", (3, 2048), F32),
        ("shortconv.in_proj.weight", (2048, 6144), Q4_K),
        ("shortconv.out_proj.weight", (2048, 2048), Q4_K),
        *feed_forward(2048, 8192),
    ]
    attention = [*Attention(2048, 32, 8, 64).tensors(Q4_K, norms=True), *feed_forward(2048, 8192)]
    kinds = [number in {2, 5, 8, 10, 12, 14} for number in range(16)]
    layers = [attention if kind else convolution for kind in kinds]
    tensors = [each for each in ends(2048, 65_536, tied=True) if "output_norm" not in each[0]]
    return PlannedModel(
        "lfm2",
        65_536,
        {
            **common(16, 2048, 8192, 128_000),
            "attention.head_count": 32,
            "attention.head_count_kv": [8 if kind else 0 for kind in kinds],
            "shortconv.l_cache": 3,
        },
        [*tensors, ("token_embd_norm.weight", (2048,), F32), *blocks(layers)],
        RMS,
    )


def rwkv7() -> PlannedModel:
    """Half of RWKV-7 1.5B: recurrent layers of linear attention."""
    size, width, lora = 2048, 8192, 96
    norms = ["attn_norm", "attn_norm_2", "time_mix_ln"]
    vectors = ["time_mix_w0", "time_mix_a0", "time_mix_v0", "time_mix_k_k", "time_mix_k_a"]
    layer: list[Tensor] = [
        *((f"{name}.{part}", (size,), F32) for name in norms for part in ("weight", "bias")),
        *((f"{name}.weight", (size,), F32) for name in [*vectors, "time_mix_r_k"]),
        *(
            (f"time_mix_{name}1.weight", (size, 256 if name == "g" else lora), F16)
            for name in "wavg"
        ),
        *(
            (f"time_mix_{name}2.weight", (256 if name == "g" else lora, size), F16)
            for name in "wavg"
        ),
        ("time_mix_lerp_fused.weight", (size, 1, 1, 6), F32),
        ("channel_mix_lerp_k.weight", (size, 1, 1), F32),
        *(
            (f"time_mix_{name}.weight", (size, size), Q4_K)
            for name in ("key", "value", "receptance", "output")
        ),
        ("channel_mix_key.weight", (size, width), Q4_K),
        ("channel_mix_value.weight", (width, size), Q4_K),
    ]
    return PlannedModel(
        "rwkv7",
        65_536,
        {
            **common(12, size, width, 4096),
            "attention.head_count": 0,
            "wkv.head_size": 64,
            "attention.decay_lora_rank": lora,
            "attention.iclr_lora_rank": lora,
            "attention.value_residual_mix_lora_rank": lora,
            "attention.gate_lora_rank": 256,
        },
        [
            ("token_embd.weight", (size, 65_536), Q4_K),
            ("token_embd_norm.weight", (size,), F32),
            ("token_embd_norm.bias", (size,), F32),
            ("output_norm.weight", (size,), F32),
            ("output_norm.bias", (size,), F32),
            ("output.weight", (size, 65_536), Q6_K),
            *blocks([layer] * 12),
        ],
        {"attention.layer_norm_epsilon": 1e-5},
    )


def qwen3next() -> PlannedModel:
    """A twelfth of Qwen3-Next: gated delta nets in three of four layers, many small experts."""
    mixture: list[Tensor] = [
        ("post_attention_norm.weight", (2048,), F32),
        *experts(2048, 512, 256)[1:],
        ("ffn_gate_inp_shexp.weight", (2048,), F32),
        ("ffn_gate_shexp.weight", (2048, 512), Q4_K),
        ("ffn_up_shexp.weight", (2048, 512), Q4_K),
        ("ffn_down_shexp.weight", (512, 2048), Q4_K),
    ]
    linear = delta_net(2048, [("ssm_ba.weight", (2048, 64), Q8_0)], mixture)
    full = gated_attention(2048, 512, mixture)
    return PlannedModel(
        "qwen3next",
        151_936,
        {
            **common(4, 2048, 5120, 262_144),
            "attention.head_count": 16,
            "attention.head_count_kv": 2,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "rope.dimension_count": 64,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 4096,
            "ssm.state_size": 128,
            "ssm.time_step_rank": 32,
            "ssm.group_count": 16,
            "expert_count": 256,
            "expert_used_count": 10,
            "expert_feed_forward_length": 512,
            "expert_shared_feed_forward_length": 512,
        },
        [*ends(2048, 151_936, tied=False), *blocks([linear, linear, linear, full])],
        RMS,
    )


def jamba() -> PlannedModel:
    """A third of Jamba: Mamba in seven of eight layers, attention in one, some with experts."""
    state: list[Tensor] = [
        ("attn_norm.weight", (2560,), F32),
        ("ssm_in.weight", (2560, 10_240), Q4_K),
        ("ssm_conv1d.weight", (4, 5120), F32),
        ("ssm_conv1d.bias", (5120,), F32),
        ("ssm_x.weight", (5120, 160 + 2 * 16), Q4_K),
        ("ssm_dt_norm.weight", (160,), F32),
        ("ssm_b_norm.weight", (16,), F32),
        ("ssm_c_norm.weight", (16,), F32),
        ("ssm_dt.weight", (160, 5120), F16),
        ("ssm_dt.bias", (5120,), F32),
        ("ssm_a", (16, 5120), F32),
        ("ssm_d", (5120,), F32),
        ("ssm_out.weight", (5120, 2560), Q4_K),
    ]
    attention = list(Attention(2560, 20, 2, 128).tensors(Q4_K))
    dense, sparse = feed_forward(2560, 8192), experts(2560, 8192, 4)
    layers = [
        [*(attention if number == 4 else state), *(sparse if number % 2 else dense)]
        for number in range(8)
    ]
    return PlannedModel(
        "jamba",
        65_536,
        {
            **common(8, 2560, 8192, 262_144),
            "attention.head_count": 20,
            "attention.head_count_kv": [2 if number == 4 else 0 for number in range(8)],
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 5120,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 160,
            "expert_count": 4,
            "expert_used_count": 2,
        },
        [*ends(2560, 65_536, tied=False), *blocks(layers)],
        RMS,
    )


def falcon_h1() -> PlannedModel:
    """Half of Falcon-H1 1.5B: Mamba 2 and attention side by side in each layer."""
    layer: list[Tensor] = [
        *Attention(2048, 8, 2, 128).tensors(Q4_K),
        ("ssm_in.weight", (2048, 3072 + 3072 + 2 * 256 + 48), Q8_0),
        ("ssm_conv1d.weight", (4, 3072 + 2 * 256), F32),
        ("ssm_conv1d.bias", (3072 + 2 * 256,), F32),
        ("ssm_dt.bias", (48,), F32),
        ("ssm_a", (1, 48), F32),
        ("ssm_d", (1, 48), F32),
        ("ssm_norm.weight", (3072, 1), F32),
        ("ssm_out.weight", (3072, 2048), Q4_K),
        # Without .weight, as llama.cpp expects it.
        ("ffn_norm", (2048,), F32),
        *feed_forward(2048, 4096)[1:],
    ]
    return PlannedModel(
        "falcon-h1",
        65_536,
        {
            **common(12, 2048, 4096, 131_072),
            "attention.head_count": 8,
            "attention.head_count_kv": 2,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 3072,
            "ssm.state_size": 256,
            "ssm.time_step_rank": 48,
            "ssm.group_count": 1,
        },
        [*ends(2048, 65_536, tied=False), *blocks([layer] * 12)],
        RMS,
    )
