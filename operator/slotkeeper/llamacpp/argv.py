"""The command line of llama-server, which does not rely on its defaults.

llama.cpp's defaults change between builds (the port, the number of slots, the sharing of the KV
cache), so each flag that matters is set explicitly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ALL_LAYERS = 999
"""For `Gpus.layers`: more than any model has; llama-server then uses all of them."""

BATCH_TOKENS = 512
"""Tokens per batch if an input may be split: llama-server's default."""


@dataclass(frozen=True)
class Gpus:
    """Split of a model across GPUs and the CPU."""

    layers: int = ALL_LAYERS
    """Layers on the GPUs; the CPU computes the others."""
    cpu_moe_layers: int | None = None
    """Layers whose experts the CPU computes nevertheless."""
    split_mode: str = "layer"
    main: int | None = None
    """Index of the GPU with the model if it is not split."""
    tensor_split: tuple[float, ...] = ()
    """Proportion of each GPU; empty to split by free memory."""


@dataclass(frozen=True)
class Chat:
    """Conversion of messages into a prompt, and of the output into a message."""

    jinja: bool = True
    template: str | None = None
    """Text of a template or the name of a built-in one; None for the model's template."""
    template_kwargs: str | None = None
    """Values of the template's variables, as a JSON object."""
    reasoning: Literal["on", "off", "auto"] = "auto"
    reasoning_format: str = "auto"
    reasoning_budget: int = -1
    """Tokens; -1 for no limit."""


@dataclass(frozen=True)
class Sampling:
    """Default sampling parameters of requests; None for the default in the model's file."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None


NGRAM_MOD_MIN_TOKENS = 48
"""Minimum number of tokens that ngram-mod guesses, as llama-server's default."""


@dataclass(frozen=True)
class Speculative:
    """Speculative decoding."""

    type: str
    draft: str | None = None
    """Path of the draft model."""
    draft_layers: int = 0
    """Layers of the draft on the GPUs."""
    max_tokens: int | None = None
    """Maximum number of tokens guessed at once; None for llama-server's default."""
    min_probability: float | None = None


@dataclass(frozen=True)
class Embeddings:
    """Vectors instead of text."""

    pooling: str | None = None
    """None for the model's default; "rank" for a reranker."""


@dataclass(frozen=True)
class Serving:
    """Configuration of one llama-server."""

    model_path: str
    alias: str
    """Name of the model in responses and in /v1/models."""
    slots: int
    context_per_slot: int
    """Tokens."""
    cache_ram_mib: int
    """Maximum size of the cache of prompts that have left their slot, in MiB of main memory."""
    port: int
    host: str = "::"
    """Address to listen on; `::` for all IPv6 and IPv4 addresses."""
    kv_cache_type: str = "f16"
    flash_attention: Literal["on", "off", "auto"] = "auto"
    gpus: Gpus | None = None
    """None for the CPU only."""
    chat: Chat = Chat()
    sampling: Sampling = Sampling()
    speculative: Speculative | None = None
    embeddings: Embeddings | None = None
    """None for text generation."""
    mmproj: str | None = None
    """Path of the multimodal projector."""
    mmproj_offload: bool = True
    """Whether the projector is on a GPU, if there is one."""
    adapters: tuple[tuple[str, float], ...] = ()
    """Path and scale of each LoRA adapter. Paths must not contain ',' or ':'."""
    workers: tuple[str, ...] = ()
    """HOST:PORT of each rpc-server whose devices are used."""
    threads: int | None = None
    """Compute threads; None for the number of the node's cores."""
    context_checkpoints: int | None = None
    """Maximum number of checkpoints of each slot; None for llama-server's default."""
    slot_save_path: str | None = None
    """Folder in which slots are saved, with a slash at its end. None: they cannot be saved."""
    extra: tuple[str, ...] = ()
    """Additional arguments. They come last, because the last occurrence of a flag applies."""


def argv(serving: Serving) -> list[str]:
    """Return the arguments without the program's name."""
    return list(_arguments(serving))


def _arguments(serving: Serving) -> Iterator[str]:
    yield from ("--model", serving.model_path)
    yield from ("--alias", serving.alias)
    if serving.mmproj is not None:
        yield from ("--mmproj", serving.mmproj)
        if not serving.mmproj_offload:
            yield "--no-mmproj-offload"
    if serving.adapters:
        scaled = (f"{path}:{_number(scale)}" for path, scale in serving.adapters)
        yield from ("--lora-scaled", ",".join(scaled))
    yield from ("--host", serving.host)
    yield from ("--port", str(serving.port))
    yield from _slots(serving)
    yield from _compute(serving)
    yield from _chat(serving.chat)
    yield from _sampling(serving.sampling)
    if serving.speculative:
        yield from _speculative(serving.speculative)
    if serving.embeddings:
        yield from _embeddings(serving.embeddings, serving.context_per_slot)
    yield "--metrics"
    yield "--slots"
    # The balancer does not forward web pages.
    yield "--no-webui"
    yield from serving.extra


def _slots(serving: Serving) -> Iterator[str]:
    yield from ("--parallel", str(serving.slots))
    yield "--cont-batching"
    # llama-server divides --ctx-size by the number of slots.
    yield from ("--ctx-size", str(serving.context_per_slot * serving.slots))
    # If all slots share one cache, a long request aborts the others once it is full.
    yield "--no-kv-unified"
    yield from ("--cache-type-k", serving.kv_cache_type)
    yield from ("--cache-type-v", serving.kv_cache_type)
    # The default is 8 GiB, regardless of the container's memory limit.
    yield from ("--cache-ram", str(serving.cache_ram_mib))
    if serving.context_checkpoints is not None:
        yield from ("--ctx-checkpoints", str(serving.context_checkpoints))
    if serving.slot_save_path is not None:
        yield from ("--slot-save-path", serving.slot_save_path)


def _compute(serving: Serving) -> Iterator[str]:
    yield from ("--flash-attn", serving.flash_attention)
    # Otherwise llama-server silently moves layers to the CPU, or reduces the context, until the
    # model fits.
    yield from ("--fit", "off")
    gpus = serving.gpus or Gpus(layers=0)
    yield from ("--n-gpu-layers", str(gpus.layers))
    if gpus.cpu_moe_layers is not None:
        yield from ("--n-cpu-moe", str(gpus.cpu_moe_layers))
    if serving.gpus:
        yield from ("--split-mode", gpus.split_mode)
    if gpus.main is not None:
        yield from ("--main-gpu", str(gpus.main))
    if gpus.tensor_split:
        yield from ("--tensor-split", ",".join(map(_number, gpus.tensor_split)))
    if serving.workers:
        yield from ("--rpc", ",".join(serving.workers))
    if serving.threads is not None:
        yield from ("--threads", str(serving.threads))


_SMALLEST = 2.0**-126
"""llama-server does not start with a number that is closer to 0, unless it is 0."""


def _number(value: float) -> str:
    if abs(value) < _SMALLEST:
        return "0"
    return str(int(value)) if value == int(value) else str(value)


def _chat(chat: Chat) -> Iterator[str]:
    # First, because it determines how llama-server parses the template.
    yield "--jinja" if chat.jinja else "--no-jinja"
    if chat.template is not None:
        yield from ("--chat-template", chat.template)
    if chat.template_kwargs is not None:
        yield from ("--chat-template-kwargs", chat.template_kwargs)
    yield from ("--reasoning", chat.reasoning)
    yield from ("--reasoning-format", chat.reasoning_format)
    yield from ("--reasoning-budget", str(chat.reasoning_budget))


def _sampling(sampling: Sampling) -> Iterator[str]:
    values = {
        "--temp": sampling.temperature,
        "--top-k": sampling.top_k,
        "--top-p": sampling.top_p,
        "--min-p": sampling.min_p,
        "--repeat-penalty": sampling.repeat_penalty,
        "--repeat-last-n": sampling.repeat_last_n,
        "--presence-penalty": sampling.presence_penalty,
        "--frequency-penalty": sampling.frequency_penalty,
        "--seed": sampling.seed,
    }
    for flag, value in values.items():
        if value is not None:
            yield from (flag, _number(value))


_MAX_TOKENS = {
    "ngram-simple": "--spec-ngram-simple-size-m",
    "ngram-map-k": "--spec-ngram-map-k-size-m",
    "ngram-map-k4v": "--spec-ngram-map-k4v-size-m",
    "ngram-mod": "--spec-ngram-mod-n-max",
}
"""The flag of each type; that of drafts for the others."""


def _speculative(speculative: Speculative) -> Iterator[str]:
    # Explicitly, because some builds guess the type from the draft's file.
    yield from ("--spec-type", speculative.type)
    if speculative.draft is not None:
        yield from ("--spec-draft-model", speculative.draft)
        yield from ("--spec-draft-ngl", str(speculative.draft_layers))
    if speculative.max_tokens is not None:
        flag = _MAX_TOKENS.get(speculative.type, "--spec-draft-n-max")
        yield from (flag, str(speculative.max_tokens))
        if speculative.type == "ngram-mod" and speculative.max_tokens < NGRAM_MOD_MIN_TOKENS:
            # Otherwise it would guess none: the minimum would be above the maximum.
            yield from ("--spec-ngram-mod-n-min", str(speculative.max_tokens))
    if speculative.min_probability is not None:
        yield from ("--spec-draft-p-min", _number(speculative.min_probability))


def _embeddings(embeddings: Embeddings, context: int) -> Iterator[str]:
    yield "--reranking" if embeddings.pooling == "rank" else "--embeddings"
    if embeddings.pooling is not None:
        yield from ("--pooling", embeddings.pooling)
    batch = embeddings_batch(embeddings.pooling, context)
    yield from ("--batch-size", str(batch))
    yield from ("--ubatch-size", str(batch))


def embeddings_batch(pooling: str | None, context: int) -> int:
    """Return the tokens per batch of a llama-server for embeddings."""
    # With bidirectional attention an input has to fit into one batch, or it is rejected. Only with
    # pooling of the last token may it be split.
    return min(BATCH_TOKENS, context) if pooling == "last" else context
