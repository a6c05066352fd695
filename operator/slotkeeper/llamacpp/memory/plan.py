"""Adds up what llama-server allocates on each GPU, and in main memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from slotkeeper.llamacpp.argv import ALL_LAYERS
from slotkeeper.llamacpp.memory.compute import (
    compute_bytes,
    embedding_bytes,
    input_bytes,
    logits_bytes,
)
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer
from slotkeeper.llamacpp.memory.kv_cache import cache_bytes
from slotkeeper.llamacpp.memory.load import GPU_OVERHEAD, Gpus, Load
from slotkeeper.llamacpp.memory.placement import assign, shares
from slotkeeper.llamacpp.memory.projector import Projector

_PIPELINE_COPIES = 4
"""Copies of a batch's inputs on each of several GPUs, which so work on several batches at once."""


@dataclass(frozen=True)
class Usage:
    """Bytes of a GPU, or of main memory."""

    weights: int = 0
    kv_cache: int = 0
    """With recurrent states."""
    compute: int = 0
    output: int = 0
    """Results, which are always in main memory."""
    overhead: int = 0
    """See GPU_OVERHEAD."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.kv_cache + self.compute + self.output + self.overhead

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.weights + other.weights,
            self.kv_cache + other.kv_cache,
            self.compute + other.compute,
            self.output + other.output,
            max(self.overhead, other.overhead),
        )


@dataclass(frozen=True)
class Plan:
    """What a replica allocates."""

    gpus: tuple[Usage, ...]
    """In the order of the GPUs of its load."""
    host: Usage
    """Main memory. Its weights are those of the mapped file that remain in use, which Linux can
    read again when it needs the memory."""

    def fits(self, gpus: Gpus) -> bool:
        """Whether each GPU has enough memory."""
        return all(
            usage.total <= memory for usage, memory in zip(self.gpus, gpus.memory, strict=True)
        )

    def __add__(self, other: "Plan") -> "Plan":
        added = (mine + theirs for mine, theirs in zip(self.gpus, other.gpus, strict=True))
        return Plan(tuple(added), self.host + other.host)


@dataclass(frozen=True)
class Parts:
    """What a replica loads."""

    model: Dimensions
    projector: Projector | None = None
    projector_on_gpu: bool = True
    draft: Dimensions | None = None
    """A model for speculative decoding, with as many slots and as much context."""
    draft_layers: int = ALL_LAYERS
    """Its layers on the GPUs, of which the output is one."""


def plan(parts: Parts, load: Load) -> Plan:
    """Return what llama-server allocates. Raises UnplannableError."""
    planned = _model(parts.model, load)
    if parts.draft is not None:
        layers = replace(load.gpus, layers=parts.draft_layers, cpu_expert_layers=0)
        planned += _model(parts.draft, replace(load, gpus=layers, kv_cache_type="f16"))
    if parts.projector is not None:
        planned += _projector(parts.projector, load, on_gpu=parts.projector_on_gpu)
    return planned


def _model(model: Dimensions, load: Load) -> Plan:
    gpus = load.gpus
    if not gpus.memory or gpus.layers == 0:
        return Plan(_unused(gpus), _on_host(model, model.layers, load, output=True))
    assigned = assign(len(model.layers), gpus)
    if gpus.split_mode == "tensor":
        return _by_tensor(model, load, assigned)
    usages = [_on_gpu(model, load, assigned, gpu) for gpu in range(len(gpus.memory))]
    if gpus.split_mode == "row":
        total = sum(usage.weights for usage in usages)
        # Rows of each matrix are on all GPUs; the rest is where its layer is.
        usages = [
            replace(usage, weights=ceil(total * share))
            for usage, share in zip(usages, shares(gpus), strict=True)
        ]
    rest = [layer for layer, gpu in zip(model.layers, assigned, strict=False) if gpu is None]
    experts = sum(layer.experts for layer in _with_cpu_experts(model, assigned, gpus))
    host = _on_host(model, rest, load, output=assigned[-1] is None)
    return Plan(tuple(usages), replace(host, weights=host.weights + experts))


def _by_tensor(model: Dimensions, load: Load, assigned: Sequence[int | None]) -> Plan:
    """Return the plan if each tensor and its part of the KV cache is on all GPUs."""
    gpus = load.gpus
    as_one = replace(load, gpus=replace(gpus, memory=(sum(gpus.memory),), shares=()))
    one = [None if gpu is None else 0 for gpu in assigned]
    whole = _on_gpu(model, as_one, one, 0)
    rest = [layer for layer, gpu in zip(model.layers, one, strict=False) if gpu is None]
    parts = (
        replace(whole, weights=ceil(whole.weights * share), kv_cache=ceil(whole.kv_cache * share))
        for share in shares(gpus)
    )
    return Plan(tuple(parts), _on_host(model, rest, load, output=one[-1] is None))


def _on_gpu(model: Dimensions, load: Load, assigned: Sequence[int | None], gpu: int) -> Usage:
    layers = [layer for layer, owner in zip(model.layers, assigned, strict=False) if owner == gpu]
    has_output = assigned[-1] == gpu
    if not layers and not has_output:
        return Usage()
    weights = sum(layer.weights for layer in layers)
    off = [layer for layer, owner in zip(model.layers, assigned, strict=False) if owner is None]
    moved = _with_cpu_experts(model, assigned, load.gpus)
    weights -= sum(layer.experts for layer in moved if any(layer is each for each in layers))
    if has_output:
        weights += model.output_weights + (model.table if model.tied else 0)
    pipelined = len(load.gpus.memory) > 1 and not off and not moved
    inputs = input_bytes(model, load) * (
        _PIPELINE_COPIES if pipelined and load.gpus.split_mode == "layer" else 1
    )
    # For a batch, weights in main memory are copied to the GPU, one tensor at a time.
    copied = max((layer.largest_tensor for layer in [*off, *moved]), default=0)
    compute = compute_bytes(model, layers, load, output=has_output)
    return Usage(
        weights=weights,
        kv_cache=sum(cache_bytes(model, layer, load) for layer in layers),
        compute=compute + inputs + copied,
        overhead=GPU_OVERHEAD,
    )


def _on_host(model: Dimensions, layers: Sequence[Layer], load: Load, *, output: bool) -> Usage:
    """Return the use of main memory by these layers, and by what is never on a GPU."""
    weights = model.table + model.input_weights + sum(layer.weights for layer in layers)
    compute = compute_bytes(model, layers, load, output=output)
    return Usage(
        weights=weights + (model.output_weights if output else 0),
        kv_cache=sum(cache_bytes(model, layer, load) for layer in layers),
        compute=max(compute, 2 * embedding_bytes(model, load)) + input_bytes(model, load),
        output=logits_bytes(model, load),
    )


def _with_cpu_experts(model: Dimensions, assigned: Sequence[int | None], gpus: Gpus) -> list[Layer]:
    """Return the layers on GPUs whose experts are in main memory."""
    return [
        layer
        for layer, owner in list(zip(model.layers, assigned, strict=False))[
            : gpus.cpu_expert_layers
        ]
        if owner is not None
    ]


def _projector(projector: Projector, load: Load, *, on_gpu: bool) -> Plan:
    usage = Usage(weights=projector.weights, compute=projector.compute)
    others = _unused(load.gpus)
    if on_gpu and others and load.gpus.layers:
        return Plan((usage, *others[1:]), Usage())
    return Plan(others, usage)


def _unused(gpus: Gpus) -> tuple[Usage, ...]:
    return (Usage(),) * len(gpus.memory)
