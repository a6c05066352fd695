"""Models of the usual architectures, with the dimensions of real ones and without weights.

Their GGUF files are sparse: the headers are written by the gguf package, and the weights are zeros
that take no space.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

F32 = GGMLQuantizationType.F32
F16 = GGMLQuantizationType.F16
Q4_K = GGMLQuantizationType.Q4_K
Q5_0 = GGMLQuantizationType.Q5_0
Q6_K = GGMLQuantizationType.Q6_K
Q8_0 = GGMLQuantizationType.Q8_0
MXFP4 = GGMLQuantizationType.MXFP4

Tensor = tuple[str, tuple[int, ...], GGMLQuantizationType]
"""Name, dimensions in ggml's order, data type."""


@dataclass(frozen=True)
class PlannedModel:
    """A model without weights, whose memory is planned."""

    architecture: str
    vocabulary: int
    numbers: dict[str, int | list[int]]
    """Metadata, without the prefix of the architecture."""
    tensors: Sequence[Tensor]
    floats: dict[str, float] = field(default_factory=dict)
    tokenizer: str = "gpt2"
    booleans: dict[str, bool] = field(default_factory=dict)


def write(model: PlannedModel, path: Path, *, vocabulary: bool = True) -> None:
    """Write the model as a sparse file. Without its vocabulary, only its header can be read."""
    writer = GGUFWriter(path, model.architecture)
    prefix = model.architecture
    for key, number in model.numbers.items():
        if isinstance(number, list):
            writer.add_array(f"{prefix}.{key}", number)
        else:
            writer.add_uint32(f"{prefix}.{key}", number)
    for key, value in model.floats.items():
        writer.add_float32(f"{prefix}.{key}", value)
    for key, flag in model.booleans.items():
        writer.add_bool(f"{prefix}.{key}", flag)
    if vocabulary:
        _add_vocabulary(writer, model)
    for name, shape, kind in model.tensors:
        elements, size = GGML_QUANT_SIZES[kind]
        nbytes = prod(shape) // elements * size
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = 0
    for _, shape, kind in model.tensors:
        elements, size = GGML_QUANT_SIZES[kind]
        data += -(-(prod(shape) // elements * size) // 32) * 32
    with path.open("r+b") as file:
        header = file.seek(0, 2)
        file.truncate(-(-header // 32) * 32 + data)


def _add_vocabulary(writer: GGUFWriter, model: PlannedModel) -> None:
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*words, *(f"w{number}" for number in range(len(words), model.vocabulary))]
    words = words[: model.vocabulary]
    kinds = [2, 3, 3, *([6] * 256)] + [1] * model.vocabulary
    if model.tokenizer == "bert":
        words[:5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        kinds = [3, 2, 3, 3, 3] + [1] * model.vocabulary
    writer.add_tokenizer_model(model.tokenizer)
    writer.add_token_list(words)
    writer.add_token_types(kinds[: model.vocabulary])
    if model.tokenizer == "llama":
        writer.add_token_scores([0.0] * model.vocabulary)
    if model.tokenizer == "gpt2":
        writer.add_token_merges(["w 1"])
        writer.add_tokenizer_pre("gpt-2")
    if model.tokenizer == "bert":
        writer.add_token_type_count(2)
        writer.add_unk_token_id(1)
        writer.add_sep_token_id(3)
        writer.add_pad_token_id(0)
        writer.add_bos_token_id(2)
        writer.add_eos_token_id(3)
    else:
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)


@dataclass(frozen=True)
class _Attention:
    embedding: int
    heads: int
    kv_heads: int
    head: int

    def tensors(self, kind: GGMLQuantizationType, *, norms: bool = False) -> Iterator[Tensor]:
        query, key = self.heads * self.head, self.kv_heads * self.head
        yield "attn_norm.weight", (self.embedding,), F32
        yield "attn_q.weight", (self.embedding, query), kind
        yield "attn_k.weight", (self.embedding, key), kind
        yield "attn_v.weight", (self.embedding, key), Q6_K
        yield "attn_output.weight", (query, self.embedding), kind
        if norms:
            yield "attn_q_norm.weight", (self.head,), F32
            yield "attn_k_norm.weight", (self.head,), F32


def _feed_forward(embedding: int, width: int, kind: GGMLQuantizationType = Q4_K) -> list[Tensor]:
    return [
        ("ffn_norm.weight", (embedding,), F32),
        ("ffn_gate.weight", (embedding, width), kind),
        ("ffn_up.weight", (embedding, width), kind),
        ("ffn_down.weight", (width, embedding), Q6_K if width % 256 == 0 else Q8_0),
    ]


def _experts(
    embedding: int, width: int, count: int, kind: GGMLQuantizationType = Q4_K
) -> list[Tensor]:
    return [
        ("ffn_norm.weight", (embedding,), F32),
        ("ffn_gate_inp.weight", (embedding, count), F32),
        ("ffn_gate_exps.weight", (embedding, width, count), kind),
        ("ffn_up_exps.weight", (embedding, width, count), kind),
        ("ffn_down_exps.weight", (width, embedding, count), kind if width % 256 == 0 else Q5_0),
    ]


def _blocks(layers: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [
        (f"blk.{number}.{name}", shape, kind)
        for number, tensors in enumerate(layers)
        for name, shape, kind in tensors
    ]


def _ends(embedding: int, vocabulary: int, *, tied: bool) -> list[Tensor]:
    table: list[Tensor] = [
        ("token_embd.weight", (embedding, vocabulary), Q6_K if tied else Q4_K),
        ("output_norm.weight", (embedding,), F32),
    ]
    return table if tied else [*table, ("output.weight", (embedding, vocabulary), Q6_K)]


def _common(layers: int, embedding: int, width: int, context: int, **more: int) -> dict[str, int]:
    return {
        "context_length": context,
        "embedding_length": embedding,
        "block_count": layers,
        "feed_forward_length": width,
        **more,
    }


RMS = {"attention.layer_norm_rms_epsilon": 1e-6}


def llama() -> PlannedModel:
    """Llama 3.2 1B: grouped-query attention."""
    layer = [*_Attention(2048, 32, 8, 64).tensors(Q4_K), *_feed_forward(2048, 8192)]
    return PlannedModel(
        "llama",
        128_256,
        {
            **_common(16, 2048, 8192, 131_072),
            "attention.head_count": 32,
            "attention.head_count_kv": 8,
            "rope.dimension_count": 64,
        },
        [*_ends(2048, 128_256, tied=True), *_blocks([layer] * 16)],
        RMS,
    )


def gemma() -> PlannedModel:
    """Gemma 2B: multi-query attention, with one head of keys and values."""
    layer = [*_Attention(2048, 8, 1, 256).tensors(Q4_K), *_feed_forward(2048, 16_384)]
    return PlannedModel(
        "gemma",
        256_000,
        {
            **_common(18, 2048, 16_384, 8192),
            "attention.head_count": 8,
            "attention.head_count_kv": 1,
            "attention.key_length": 256,
            "attention.value_length": 256,
        },
        [*_ends(2048, 256_000, tied=True), *_blocks([layer] * 18)],
        RMS,
        "llama",
    )


def gemma3() -> PlannedModel:
    """Gemma 3 4B: a sliding window in five of six layers."""
    layer = [
        *_Attention(2560, 8, 4, 256).tensors(Q4_K, norms=True),
        ("post_attention_norm.weight", (2560,), F32),
        *_feed_forward(2560, 10_240),
        ("post_ffw_norm.weight", (2560,), F32),
    ]
    return PlannedModel(
        "gemma3",
        262_144,
        {
            **_common(34, 2560, 10_240, 131_072),
            "attention.head_count": 8,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 1024,
        },
        [*_ends(2560, 262_144, tied=True), *_blocks([layer] * 34)],
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
            **_common(18, 640, 2048, 32_768),
            "attention.head_count": 4,
            "attention.head_count_kv": 1,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 512,
        },
        [
            ("token_embd.weight", (640, 262_144), Q8_0),
            ("output_norm.weight", (640,), F32),
            *_blocks(layers),
        ],
        RMS,
        "llama",
    )


def qwen3() -> PlannedModel:
    """Qwen3 1.7B: more query numbers than the embedding has."""
    layer = [*_Attention(2048, 16, 8, 128).tensors(Q4_K, norms=True), *_feed_forward(2048, 6144)]
    return PlannedModel(
        "qwen3",
        151_936,
        {
            **_common(28, 2048, 6144, 40_960),
            "attention.head_count": 16,
            "attention.head_count_kv": 8,
            "attention.key_length": 128,
            "attention.value_length": 128,
        },
        [*_ends(2048, 151_936, tied=True), *_blocks([layer] * 28)],
        RMS,
    )


def qwen3moe() -> PlannedModel:
    """A quarter of Qwen3 30B-A3B: a mixture of experts."""
    layer = [
        *_Attention(2048, 32, 4, 128).tensors(Q4_K, norms=True),
        *_experts(2048, 768, 128),
    ]
    return PlannedModel(
        "qwen3moe",
        151_936,
        {
            **_common(12, 2048, 6144, 40_960),
            "attention.head_count": 32,
            "attention.head_count_kv": 4,
            "attention.key_length": 128,
            "attention.value_length": 128,
            "expert_count": 128,
            "expert_used_count": 8,
            "expert_feed_forward_length": 768,
        },
        [*_ends(2048, 151_936, tied=False), *_blocks([layer] * 12)],
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
    dense = [*attention, *_feed_forward(2048, 10_944)]
    sparse = [*attention, *_experts(2048, 1408, 64), *shared]
    return PlannedModel(
        "deepseek2",
        102_400,
        {
            **_common(9, 2048, 10_944, 163_840),
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
        [*_ends(2048, 102_400, tied=False), *_blocks([dense, *[sparse] * 8])],
        RMS,
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
            **_common(48, 2048, 0, 1_048_576),
            "attention.head_count": 0,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 4096,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 128,
        },
        [*_ends(2048, 50_280, tied=True), *_blocks([layer] * 48)],
        RMS,
    )


def lfm2() -> PlannedModel:
    """LFM2 1.2B: short convolutions in ten of sixteen layers, attention in the others."""
    convolution: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("shortconv.conv.weight", (3, 2048), F32),
        ("shortconv.in_proj.weight", (2048, 6144), Q4_K),
        ("shortconv.out_proj.weight", (2048, 2048), Q4_K),
        *_feed_forward(2048, 8192),
    ]
    attention = [*_Attention(2048, 32, 8, 64).tensors(Q4_K, norms=True), *_feed_forward(2048, 8192)]
    kinds = [number in {2, 5, 8, 10, 12, 14} for number in range(16)]
    layers = [attention if kind else convolution for kind in kinds]
    tensors = [each for each in _ends(2048, 65_536, tied=True) if "output_norm" not in each[0]]
    return PlannedModel(
        "lfm2",
        65_536,
        {
            **_common(16, 2048, 8192, 128_000),
            "attention.head_count": 32,
            "attention.head_count_kv": [8 if kind else 0 for kind in kinds],
            "shortconv.l_cache": 3,
        },
        [*tensors, ("token_embd_norm.weight", (2048,), F32), *_blocks(layers)],
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
            **_common(32, 3072, 8192, 4096),
            "attention.head_count": 32,
            "attention.head_count_kv": 32,
            "attention.sliding_window": 2047,
            "rope.dimension_count": 96,
        },
        [*_ends(3072, 32_064, tied=False), *_blocks([layer] * 32)],
        RMS,
        "llama",
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
            **_common(8, 2880, 2880, 131_072),
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
            *_blocks([layer] * 8),
        ],
        RMS,
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
            **_common(12, 768, 3072, 2048),
            "attention.head_count": 12,
            "pooling_type": 1,
        },
        [
            ("token_embd.weight", (768, 30_522), F16),
            ("token_types.weight", (768, 2), F32),
            ("token_embd_norm.weight", (768,), F32),
            ("token_embd_norm.bias", (768,), F32),
            *_blocks([layer] * 12),
        ],
        {"attention.layer_norm_epsilon": 1e-12, "rope.freq_base": 1000.0},
        "bert",
        {"attention.causal": False},
    )


def command_r() -> PlannedModel:
    """An eighth of Command R7B's predecessor: a layer's two parts from the same input."""
    layer = [
        each
        for each in [*_Attention(4096, 32, 8, 128).tensors(Q4_K), *_feed_forward(4096, 14_336)]
        if each[0] != "ffn_norm.weight"
    ]
    return PlannedModel(
        "command-r",
        256_000,
        {
            **_common(8, 4096, 14_336, 131_072),
            "attention.head_count": 32,
            "attention.head_count_kv": 8,
        },
        [*_ends(4096, 256_000, tied=True), *_blocks([layer] * 8)],
        {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.0625},
    )


def starcoder2() -> PlannedModel:
    """Half of StarCoder2 3B: biases, and a feed-forward part without a gate."""
    layer: list[Tensor] = [
        *_Attention(3072, 24, 2, 128).tensors(Q4_K),
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
            **_common(15, 3072, 12_288, 16_384),
            "attention.head_count": 24,
            "attention.head_count_kv": 2,
        },
        [
            *_ends(3072, 49_152, tied=True),
            ("output_norm.bias", (3072,), F32),
            *_blocks([layer] * 15),
        ],
        {"attention.layer_norm_epsilon": 1e-5},
    )


def gemma2() -> PlannedModel:
    """Half of Gemma 2 2B: a limit of the attention's logits, a window in every second layer."""
    layer = [
        *_Attention(2304, 8, 4, 256).tensors(Q4_K),
        ("post_attention_norm.weight", (2304,), F32),
        *_feed_forward(2304, 9216),
        ("post_ffw_norm.weight", (2304,), F32),
    ]
    return PlannedModel(
        "gemma2",
        256_000,
        {
            **_common(13, 2304, 9216, 8192),
            "attention.head_count": 8,
            "attention.head_count_kv": 4,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.sliding_window": 4096,
        },
        [*_ends(2304, 256_000, tied=True), *_blocks([layer] * 13)],
        {**RMS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        "llama",
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
    attention = list(_Attention(2560, 20, 2, 128).tensors(Q4_K))
    dense, sparse = _feed_forward(2560, 8192), _experts(2560, 8192, 4)
    layers = [
        [*(attention if number == 4 else state), *(sparse if number % 2 else dense)]
        for number in range(8)
    ]
    return PlannedModel(
        "jamba",
        65_536,
        {
            **_common(8, 2560, 8192, 262_144),
            "attention.head_count": 20,
            "attention.head_count_kv": [2 if number == 4 else 0 for number in range(8)],
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 5120,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 160,
            "expert_count": 4,
            "expert_used_count": 2,
        },
        [*_ends(2560, 65_536, tied=False), *_blocks(layers)],
        RMS,
    )


def falcon_h1() -> PlannedModel:
    """Half of Falcon-H1 1.5B: Mamba 2 and attention side by side in each layer."""
    layer: list[Tensor] = [
        *_Attention(2048, 8, 2, 128).tensors(Q4_K),
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
        *_feed_forward(2048, 4096)[1:],
    ]
    return PlannedModel(
        "falcon-h1",
        65_536,
        {
            **_common(12, 2048, 4096, 131_072),
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
        [*_ends(2048, 65_536, tied=False), *_blocks([layer] * 12)],
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
            **_common(12, size, width, 4096),
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
            *_blocks([layer] * 12),
        ],
        {"attention.layer_norm_epsilon": 1e-5},
    )


def qwen3next() -> PlannedModel:
    """A twelfth of Qwen3-Next: gated delta nets in three of four layers, many small experts."""
    experts: list[Tensor] = [
        ("post_attention_norm.weight", (2048,), F32),
        *_experts(2048, 512, 256)[1:],
        ("ffn_gate_inp_shexp.weight", (2048,), F32),
        ("ffn_gate_shexp.weight", (2048, 512), Q4_K),
        ("ffn_up_shexp.weight", (2048, 512), Q4_K),
        ("ffn_down_shexp.weight", (512, 2048), Q4_K),
    ]
    linear: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("attn_qkv.weight", (2048, 8192), Q4_K),
        ("attn_gate.weight", (2048, 4096), Q4_K),
        ("ssm_conv1d.weight", (4, 8192), F32),
        ("ssm_dt.bias", (32,), F32),
        ("ssm_a", (32,), F32),
        ("ssm_ba.weight", (2048, 64), Q8_0),
        ("ssm_norm.weight", (128,), F32),
        ("ssm_out.weight", (4096, 2048), Q4_K),
        *experts,
    ]
    full: list[Tensor] = [
        ("attn_norm.weight", (2048,), F32),
        ("attn_q.weight", (2048, 8192), Q4_K),
        ("attn_k.weight", (2048, 512), Q4_K),
        ("attn_v.weight", (2048, 512), Q4_K),
        ("attn_output.weight", (4096, 2048), Q4_K),
        ("attn_q_norm.weight", (256,), F32),
        ("attn_k_norm.weight", (256,), F32),
        *experts,
    ]
    return PlannedModel(
        "qwen3next",
        151_936,
        {
            **_common(4, 2048, 5120, 262_144),
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
        [*_ends(2048, 151_936, tied=False), *_blocks([linear, linear, linear, full])],
        RMS,
    )


MODELS = {
    builder.__name__: builder
    for builder in (
        llama,
        gemma,
        gemma3,
        gemma3_270m,
        qwen3,
        qwen3moe,
        deepseek2,
        mamba,
        lfm2,
        phi3,
        gpt_oss,
        nomic_bert,
        command_r,
        rwkv7,
        qwen3next,
        starcoder2,
        gemma2,
        jamba,
        falcon_h1,
    )
}
