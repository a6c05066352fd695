"""Write a GGUF model with random weights, valid for llama-server and with a selectable speed.

    python write_gguf.py tiny.gguf --layers 2 --width 64 --context 4096
    python write_gguf.py lora.gguf --layers 2 --width 64 --lora-rank 4
    python write_gguf.py split.gguf --layers 2 --width 64 --tensors-per-file 8
    python write_gguf.py hybrid.gguf --layers 2 --width 64 --hybrid

The model is a `llama` with a vocabulary of 256 bytes (and three control tokens), so that every text
is a prompt and every response is noise. The time per token is proportional to
`layers * width * width`, by which a test selects the duration of a request.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

HEAD_WIDTH = 32
"""Width of one attention head; `--width` must be a multiple of it."""

_CONV_KERNEL, _STATE_SIZE, _TIME_STEP_RANK = 4, 16, 16
"""Of a recurrent layer, as in Mamba."""

CONTROL_TOKENS = ("<unk>", "<s>", "</s>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write(
    path: Path, *, layers: int, width: int, context: int, seed: int, tensors_per_file: int = 0
) -> None:
    """Write the model to `path`. `width` is in channels and `context` in tokens.

    With `tensors_per_file` it is split: split.gguf becomes split-00001-of-00003.gguf and so on.
    Deterministic. Raises ValueError if `width` is not a multiple of HEAD_WIDTH.
    """
    if width % HEAD_WIDTH:
        message = f"--width must be a multiple of {HEAD_WIDTH}, not {width}"
        raise ValueError(message)
    writer = GGUFWriter(path, "llama", split_max_tensors=tensors_per_file)
    writer.add_name(f"random-{layers}x{width}")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width * 4)
    writer.add_head_count(width // HEAD_WIDTH)
    writer.add_head_count_kv(width // HEAD_WIDTH)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary = _add_vocabulary(writer)
    _add_weights(writer, layers, width, vocabulary, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_hybrid(path: Path, *, layers: int, width: int, context: int, seed: int) -> None:
    """Write a `jamba`, every other layer of which has a recurrent state instead of attention.

    The arguments are those of `write`.
    """
    rng = np.random.default_rng(seed)
    writer = GGUFWriter(path, "jamba")
    recurrent = [layer % 2 == 0 for layer in range(layers)]
    writer.add_name(f"random-hybrid-{layers}x{width}")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width * 4)
    writer.add_head_count(width // HEAD_WIDTH)
    writer.add_head_count_kv([0 if each else width // HEAD_WIDTH for each in recurrent])
    writer.add_ssm_conv_kernel(_CONV_KERNEL)
    writer.add_ssm_inner_size(2 * width)
    writer.add_ssm_state_size(_STATE_SIZE)
    writer.add_ssm_time_step_rank(_TIME_STEP_RANK)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary = _add_vocabulary(writer)
    writer.add_tensor("token_embd.weight", _matrix(rng, vocabulary, width))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for layer, is_recurrent in enumerate(recurrent):
        block = f"blk.{layer}"
        if is_recurrent:
            _add_recurrent(writer, block, width, rng)
        else:
            for square in ("attn_q", "attn_k", "attn_v", "attn_output"):
                writer.add_tensor(f"{block}.{square}.weight", _matrix(rng, width, width))
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(width, dtype=np.float32))
        for wide in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{block}.{wide}.weight", _matrix(rng, width * 4, width))
        writer.add_tensor(f"{block}.ffn_down.weight", _matrix(rng, width, width * 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_recurrent(writer: GGUFWriter, block: str, width: int, rng: np.random.Generator) -> None:
    inner = 2 * width
    writer.add_tensor(f"{block}.ssm_in.weight", _matrix(rng, 2 * inner, width))
    writer.add_tensor(f"{block}.ssm_conv1d.weight", _matrix(rng, inner, _CONV_KERNEL))
    writer.add_tensor(
        f"{block}.ssm_x.weight", _matrix(rng, _TIME_STEP_RANK + 2 * _STATE_SIZE, inner)
    )
    writer.add_tensor(f"{block}.ssm_dt.weight", _matrix(rng, inner, _TIME_STEP_RANK))
    writer.add_tensor(f"{block}.ssm_out.weight", _matrix(rng, width, inner))
    # As Mamba is initialized: a slow decay of each state.
    decay = np.tile(-np.arange(1, _STATE_SIZE + 1, dtype=np.float32), (inner, 1))
    writer.add_tensor(f"{block}.ssm_a", decay)
    for bias in ("ssm_conv1d.bias", "ssm_dt.bias"):
        writer.add_tensor(f"{block}.{bias}", np.zeros(inner, dtype=np.float32))
    writer.add_tensor(f"{block}.ssm_d", np.ones(inner, dtype=np.float32))
    sizes = {"ssm_dt_norm": _TIME_STEP_RANK, "ssm_b_norm": _STATE_SIZE, "ssm_c_norm": _STATE_SIZE}
    for norm, size in sizes.items():
        writer.add_tensor(f"{block}.{norm}.weight", np.ones(size, dtype=np.float32))


def write_adapter(path: Path, *, layers: int, width: int, rank: int, seed: int) -> None:
    """Write a LoRA adapter for a model with these `layers` and this `width`, as in `write`."""
    rng = np.random.default_rng(seed)
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer in range(layers):
        weight = f"blk.{layer}.attn_q.weight"
        for part, shape in (("lora_a", (rank, width)), ("lora_b", (width, rank))):
            writer.add_tensor(f"{weight}.{part}", rng.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: GGUFWriter) -> int:
    tokens = [token.encode() for token in CONTROL_TOKENS]
    tokens += [f"<0x{byte:02X}>".encode() for byte in range(256)]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def _add_weights(
    writer: GGUFWriter, layers: int, width: int, vocabulary: int, rng: np.random.Generator
) -> None:
    def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return _matrix(rng, rows, columns)

    writer.add_tensor("token_embd.weight", matrix(vocabulary, width))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output.weight", matrix(vocabulary, width))
    for layer in range(layers):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(width, dtype=np.float32))
        for square in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{square}.weight", matrix(width, width))
        for wide in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{block}.{wide}.weight", matrix(width * 4, width))
        writer.add_tensor(f"{block}.ffn_down.weight", matrix(width, width * 4))


def _matrix(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.float32]:
    weights = rng.standard_normal((rows, columns), dtype=np.float32)
    weights /= np.float32(columns**0.5)
    return weights


def main() -> None:
    """Parse the command line and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, help="path of the .gguf file")
    parser.add_argument("--layers", type=int, default=2, help="transformer blocks (default: 2)")
    parser.add_argument(
        "--width", type=int, default=64, help="channels, a multiple of 32 (default: 64)"
    )
    parser.add_argument(
        "--context", type=int, default=8192, help="context length in tokens (default: 8192)"
    )
    parser.add_argument(
        "--lora-rank",
        type=int,
        default=0,
        help="write a LoRA adapter of this rank instead of a model",
    )
    parser.add_argument(
        "--tensors-per-file",
        type=int,
        default=0,
        help="split the model into files with so many tensors (default: one file)",
    )
    parser.add_argument(
        "--hybrid",
        action="store_true",
        help="write a model of which every other layer is recurrent instead",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random weights (default: 0)"
    )
    arguments = parser.parse_args()
    size = {name: getattr(arguments, name) for name in ("layers", "width", "seed")}
    if arguments.lora_rank:
        write_adapter(arguments.path, rank=arguments.lora_rank, **size)
        return
    if arguments.hybrid:
        write_hybrid(arguments.path, context=arguments.context, **size)
        return
    try:
        write(
            arguments.path,
            context=arguments.context,
            tensors_per_file=arguments.tensors_per_file,
            **size,
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
