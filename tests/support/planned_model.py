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
    files: int = 1
    """Of the split model that this is a file of."""


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
    if model.files > 1:
        writer.add_uint16("split.count", model.files)
    if vocabulary:
        _add_vocabulary(writer, model)
    for name, shape, kind in model.tensors:
        nbytes = _nbytes(shape, kind)
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(-(-_nbytes(shape, kind) // 32) * 32 for _, shape, kind in model.tensors)
    with path.open("r+b") as file:
        header = file.seek(0, 2)
        file.truncate(-(-header // 32) * 32 + data)


def _nbytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    elements, size = GGML_QUANT_SIZES[kind]
    nbytes: int = prod(shape) // elements * size
    return nbytes


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
class Attention:
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


def feed_forward(embedding: int, width: int, kind: GGMLQuantizationType = Q4_K) -> list[Tensor]:
    return [
        ("ffn_norm.weight", (embedding,), F32),
        ("ffn_gate.weight", (embedding, width), kind),
        ("ffn_up.weight", (embedding, width), kind),
        ("ffn_down.weight", (width, embedding), Q6_K if width % 256 == 0 else Q8_0),
    ]


def delta_net(
    embedding: int, inputs: Sequence[Tensor], feed_forward: Sequence[Tensor]
) -> list[Tensor]:
    """A layer of Qwen's gated delta nets; `inputs`: of its gates."""
    return [
        ("attn_norm.weight", (embedding,), F32),
        ("attn_qkv.weight", (embedding, 8192), Q4_K),
        ("attn_gate.weight", (embedding, 4096), Q4_K),
        ("ssm_conv1d.weight", (4, 8192), F32),
        ("ssm_dt.bias", (32,), F32),
        ("ssm_a", (32,), F32),
        *inputs,
        ("ssm_norm.weight", (128,), F32),
        ("ssm_out.weight", (4096, embedding), Q4_K),
        *feed_forward,
    ]


def gated_attention(embedding: int, key: int, feed_forward: Sequence[Tensor]) -> list[Tensor]:
    """A layer of attention between them, whose queries come with a gate each."""
    return [
        ("attn_norm.weight", (embedding,), F32),
        ("attn_q.weight", (embedding, 8192), Q4_K),
        ("attn_k.weight", (embedding, key), Q4_K),
        ("attn_v.weight", (embedding, key), Q4_K),
        ("attn_output.weight", (4096, embedding), Q4_K),
        ("attn_q_norm.weight", (256,), F32),
        ("attn_k_norm.weight", (256,), F32),
        *feed_forward,
    ]


def experts(
    embedding: int, width: int, count: int, kind: GGMLQuantizationType = Q4_K
) -> list[Tensor]:
    return [
        ("ffn_norm.weight", (embedding,), F32),
        ("ffn_gate_inp.weight", (embedding, count), F32),
        ("ffn_gate_exps.weight", (embedding, width, count), kind),
        ("ffn_up_exps.weight", (embedding, width, count), kind),
        ("ffn_down_exps.weight", (width, embedding, count), kind if width % 256 == 0 else Q5_0),
    ]


def blocks(layers: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [
        (f"blk.{number}.{name}", shape, kind)
        for number, tensors in enumerate(layers)
        for name, shape, kind in tensors
    ]


def ends(embedding: int, vocabulary: int, *, tied: bool) -> list[Tensor]:
    table: list[Tensor] = [
        ("token_embd.weight", (embedding, vocabulary), Q6_K if tied else Q4_K),
        ("output_norm.weight", (embedding,), F32),
    ]
    return table if tied else [*table, ("output.weight", (embedding, vocabulary), Q6_K)]


def common(layers: int, embedding: int, width: int, context: int, **more: int) -> dict[str, int]:
    return {
        "context_length": context,
        "embedding_length": embedding,
        "block_count": layers,
        "feed_forward_length": width,
        **more,
    }


RMS = {"attention.layer_norm_rms_epsilon": 1e-6}
