"""The command line of a llama-server, with nothing left to its defaults.

llama.cpp's defaults move between builds (the port, the slots, what shares the KV cache), so each
one that a server stands on is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ALL_LAYERS = 999
"""For `Gpus.layers`: more than any model has, which llama-server takes as all of them."""

BATCH_TOKENS = 512
"""Tokens that are computed at once where an input may be divided: llama-server's usual number."""


@dataclass(frozen=True)
class Gpus:
    """How a model is divided among GPUs and the CPU."""

    layers: int = ALL_LAYERS
    """Layers on the GPUs; the others are the CPU's."""
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    """Each GPU's share, in proportion; empty for as much as each has free."""


@dataclass(frozen=True)
class Chat:
    """How messages become a prompt, and the answer's text a message."""

    jinja: bool = True
    template: str | None = None
    """A template's text or the name of a built-in one; None for the model's own."""
    reasoning: Literal["on", "off", "auto"] = "auto"
    reasoning_format: str = "auto"
    reasoning_budget: int = -1
    """Tokens; -1 for no bound."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors instead of text."""

    pooling: str | None = None
    """None for the model's own; "rank" makes a reranker."""


@dataclass(frozen=True)
class Serving:
    """What one llama-server serves, and with what."""

    model_path: str
    alias: str
    """Name of the model in its answers and in /v1/models."""
    slots: int
    context_per_slot: int
    """Tokens that each slot has room for."""
    cache_ram_mib: int
    """Bound of the cache of prompts that have left their slot, in MiB of main memory."""
    port: int
    kv_cache_type: str = "f16"
    flash_attention: Literal["on", "off", "auto"] = "auto"
    gpus: Gpus | None = None
    """None for the CPU alone."""
    chat: Chat = Chat()
    embeddings: Embeddings | None = None
    """None for a model that writes text."""
    mmproj: str | None = None
    """Path of the projector that lets the model see or hear."""
    adapters: tuple[tuple[str, float], ...] = ()
    """Path and scale of each LoRA adapter; no path has ',' or ':' in it."""
    workers: tuple[str, ...] = ()
    """HOST:PORT of each rpc-server that lends its devices."""
    threads: int | None = None
    """Threads that compute; None for as many as the node has cores."""
    extra: tuple[str, ...] = ()
    """Further arguments. They come last: of a flag that is there twice the last one counts."""


def argv(serving: Serving) -> list[str]:
    """The arguments that follow the program's name."""
    return list(_arguments(serving))


def _arguments(serving: Serving) -> Iterator[str]:
    yield from ("--model", serving.model_path)
    yield from ("--alias", serving.alias)
    if serving.mmproj is not None:
        yield from ("--mmproj", serving.mmproj)
    if serving.adapters:
        scaled = (f"{path}:{_number(scale)}" for path, scale in serving.adapters)
        yield from ("--lora-scaled", ",".join(scaled))
    yield from ("--host", "0.0.0.0")
    yield from ("--port", str(serving.port))
    yield from _room(serving)
    yield from _computing(serving)
    yield from _chat(serving.chat)
    if serving.embeddings:
        yield from _vectors(serving.embeddings, serving.context_per_slot)
    yield "--metrics"
    yield "--slots"
    # Pages that the balancer would not pass on.
    yield "--no-webui"
    yield from serving.extra


def _room(serving: Serving) -> Iterator[str]:
    yield from ("--parallel", str(serving.slots))
    yield "--cont-batching"
    # llama-server divides --ctx-size among its slots.
    yield from ("--ctx-size", str(serving.context_per_slot * serving.slots))
    # With one cache for all slots, a long request aborts the others when it fills up.
    yield "--no-kv-unified"
    yield from ("--cache-type-k", serving.kv_cache_type)
    yield from ("--cache-type-v", serving.kv_cache_type)
    # The default is 8 GiB whatever the container may take.
    yield from ("--cache-ram", str(serving.cache_ram_mib))


def _computing(serving: Serving) -> Iterator[str]:
    yield from ("--flash-attn", serving.flash_attention)
    # Fitting would quietly move layers to the CPU, or shrink the context, until it loads.
    yield from ("--fit", "off")
    gpus = serving.gpus or Gpus(layers=0)
    yield from ("--n-gpu-layers", str(gpus.layers))
    if serving.gpus:
        yield from ("--split-mode", gpus.split_mode)
    if gpus.tensor_split:
        yield from ("--tensor-split", ",".join(map(_number, gpus.tensor_split)))
    if serving.workers:
        yield from ("--rpc", ",".join(serving.workers))
    if serving.threads is not None:
        yield from ("--threads", str(serving.threads))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _chat(chat: Chat) -> Iterator[str]:
    # First, since it says how llama-server reads the template.
    yield "--jinja" if chat.jinja else "--no-jinja"
    if chat.template is not None:
        yield from ("--chat-template", chat.template)
    yield from ("--reasoning", chat.reasoning)
    yield from ("--reasoning-format", chat.reasoning_format)
    yield from ("--reasoning-budget", str(chat.reasoning_budget))


def _vectors(embeddings: Embeddings, context: int) -> Iterator[str]:
    yield "--reranking" if embeddings.pooling == "rank" else "--embeddings"
    if embeddings.pooling is not None:
        yield from ("--pooling", embeddings.pooling)
    # An input whose tokens see all of it has to fit into one batch, or it is refused. Only where
    # the last token speaks for the others may it be divided.
    batch = min(BATCH_TOKENS, context) if embeddings.pooling == "last" else context
    yield from ("--batch-size", str(batch))
    yield from ("--ubatch-size", str(batch))
