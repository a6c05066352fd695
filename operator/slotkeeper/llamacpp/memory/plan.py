"""Adds up what llama-server allocates on each GPU, and in main memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from slotkeeper.llamacpp.memory.compute import (
    copied_layer_bytes,
    embedding_bytes,
    index_bytes,
    input_bytes,
    layer_bytes,
    layer_input_bytes,
    logits_bytes,
    only_output_bytes,
    output_bytes,
)
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer
from slotkeeper.llamacpp.memory.kv_cache import cache_bytes
from slotkeeper.llamacpp.memory.load import GPU_OVERHEAD, Gpus, Load
from slotkeeper.llamacpp.memory.placement import assign, shares
from slotkeeper.llamacpp.memory.projector import Projector

_PIPELINE_COPIES = 4
"""Copies of a batch's inputs on each of several GPUs, which so work on several batches at once."""

_HOST_EMBEDDINGS = 2
"""Vectors of all tokens in main memory if GPUs compute: of text, and of text in a batch with
images."""

_HOST_INPUTS = 2
"""Vectors of all tokens that are inputs of a batch, and allocated whether they are used or not."""

_FIRST_INPUTS = 3
"""Vectors of all tokens that the first GPU gets: those of text, those of images, and both."""

_OTHER_INPUTS = 1
"""Vectors of all tokens that each other GPU gets: those of the layer before."""


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


def plan(parts: Parts, load: Load) -> Plan:
    """Return what llama-server allocates. Raises UnplannableError."""
    planned = _model(parts.model, load)
    if parts.draft is not None:
        gpus = replace(load.gpus, layers=load.gpus.draft_layers, cpu_expert_layers=0)
        planned += _model(parts.draft, replace(load, gpus=gpus, kv_cache_type="f16"))
    if parts.projector is not None:
        planned += _projector(parts.projector, load, on_gpu=parts.projector_on_gpu)
    return planned


@dataclass(frozen=True)
class _Placed:
    """A layer with what it needs where it is."""

    layer: Layer
    gpu: int | None
    """None in main memory."""
    kv_cache: int
    compute: int
    compute_copied: int
    """The same on a GPU that computes it while it is in main memory."""
    experts_moved: bool
    """Whether it is on a GPU, and its experts are in main memory."""

    @property
    def is_off(self) -> bool:
        """Whether weights of it are in main memory."""
        return self.gpu is None or self.experts_moved

    @property
    def copied(self) -> int:
        """Bytes of its largest step with what is copied to the GPU that computes it, from main
        memory."""
        if self.gpu is None:
            return self.compute_copied
        return self.compute + self.layer.largest_tensor if self.experts_moved else 0

    @property
    def weights(self) -> int:
        """Bytes of its tensors on the GPU, or in main memory if it is there."""
        return self.layer.weights - (self.layer.experts if self.experts_moved else 0)


@dataclass(frozen=True)
class _Placement:
    """What is where."""

    layers: Sequence[_Placed]
    output: int | None
    """GPU of the output; None for main memory."""
    copies: int
    """Of the inputs of a batch, on each GPU and in main memory."""


def _model(model: Dimensions, load: Load) -> Plan:
    gpus = load.gpus
    every = len(model.layers) + 1
    used = bool(gpus.memory)
    placement = _placement(model, load, assign(len(model.layers), gpus) if used else [None] * every)
    host = _on_host(model, load, placement)
    if not used:
        return Plan(_unused(gpus), host)
    if gpus.split_mode == "tensor":
        return Plan(_by_tensor(model, load, placement), host)
    usages = [_on_gpu(model, load, placement, gpu) for gpu in range(len(gpus.memory))]
    if gpus.split_mode == "row":
        total = sum(usage.weights for usage in usages)
        # Rows of each matrix are on all GPUs; the rest is where its layer is.
        usages = [
            replace(usage, weights=ceil(total * share))
            for usage, share in zip(usages, shares(gpus), strict=True)
        ]
    return Plan(tuple(usages), host)


def _placement(model: Dimensions, load: Load, assigned: Sequence[int | None]) -> _Placement:
    # Most models have few different layers.
    sizes = {
        id(layer): _sizes(model, layer, load)
        for layer in {id(layer): layer for layer in model.layers}.values()
    }
    moved = load.gpus.cpu_expert_layers
    layers = [
        _Placed(layer, gpu, *sizes[id(layer)], gpu is not None and number < moved)
        for number, (layer, gpu) in enumerate(zip(model.layers, assigned, strict=False))
    ]
    output = assigned[-1]
    gpus = load.gpus
    off = output is None or any(each.is_off for each in layers)
    pipelined = len(gpus.memory) > 1 and gpus.split_mode == "layer" and not off
    return _Placement(layers, output, _PIPELINE_COPIES if pipelined else 1)


def _sizes(model: Dimensions, layer: Layer, load: Load) -> tuple[int, int, int]:
    kv_cache = cache_bytes(model, layer, load)
    copied = copied_layer_bytes(model, layer, load, kv_cache)
    return kv_cache, layer_bytes(model, layer, load), copied


def _by_tensor(model: Dimensions, load: Load, placement: _Placement) -> tuple[Usage, ...]:
    """Return the use of the GPUs if each tensor and its part of the KV cache is on all of them. A
    table of tokens that is also the output is whole on each."""
    layers = [replace(each, gpu=None if each.gpu is None else 0) for each in placement.layers]
    output = None if placement.output is None else 0
    whole = _on_gpu(model, load, replace(placement, layers=layers, output=output), 0)
    table = model.table if model.tied and output is not None else 0
    return tuple(
        replace(
            whole,
            weights=table + ceil((whole.weights - table) * share),
            kv_cache=ceil(whole.kv_cache * share),
        )
        for share in shares(load.gpus)
    )


def _on_gpu(model: Dimensions, load: Load, placement: _Placement, gpu: int) -> Usage:
    mine = [each for each in placement.layers if each.gpu == gpu]
    has_output = placement.output == gpu
    # What is in main memory is computed there for single tokens only.
    computes_others = gpu == load.gpus.first_local
    others = [each for each in placement.layers if each.is_off] if computes_others else []
    if not mine and not has_output and not others:
        return Usage()
    weights = sum(each.weights for each in mine)
    if has_output:
        weights += model.output_weights + (model.table if model.tied else 0)
    # Vectors of all tokens come with the first layer.
    largest = _compute(model, load, mine, output=has_output)
    if mine or others:
        largest = max([largest, *(each.copied for each in others)])
        computed = dict.fromkeys(each.layer for each in [*mine, *others])
        largest += _received(model, load, placement, gpu, computed)
    return Usage(
        weights=weights,
        kv_cache=sum(each.kv_cache for each in mine),
        compute=largest,
        overhead=GPU_OVERHEAD,
    )


def _received(
    model: Dimensions, load: Load, placement: _Placement, gpu: int, layers: Iterable[Layer]
) -> int:
    """Return the bytes of the inputs of a batch on a GPU, less those that are counted in the step
    and are in main memory, or on another GPU. The numbers are measured."""
    inputs, indices = input_bytes(model, layers, load), index_bytes(model, layers, load)
    copies = placement.copies
    inputs = copies * (inputs + indices) - indices
    if copies > 1:
        first = gpu == 0
        vectors = copies * (_FIRST_INPUTS if first else _OTHER_INPUTS)
        vectors -= 1 if first else 2
    else:
        first = gpu == load.gpus.first_local
        vectors = -1 if first or any(each.experts_moved for each in placement.layers) else -3
    return inputs + vectors * embedding_bytes(model, load) + copies * _foreign(placement, gpu)


def _foreign(placement: _Placement, gpu: int) -> int:
    """Return the bytes of KV caches elsewhere that layers of a GPU share. Each has a copy."""
    owners: dict[int, _Placed] = {}
    size = 0
    for each in placement.layers:
        if each.layer.attends:
            owners[each.layer.window] = each
        elif each.layer.heads and each.gpu == gpu:
            owner = owners.get(each.layer.window, each)
            size += owner.kv_cache if owner.gpu != gpu else 0
    return size


def _on_host(model: Dimensions, load: Load, placement: _Placement) -> Usage:
    """Return the use of main memory by the layers there, and by what is never on a GPU."""
    mine = [each for each in placement.layers if each.gpu is None]
    has_output = placement.output is None
    weights = model.table + model.input_weights + sum(each.weights for each in mine)
    experts = sum(each.layer.experts for each in placement.layers if each.experts_moved)
    layers = dict.fromkeys(model.layers)
    inputs = input_bytes(model, layers, load)
    if load.gpus.memory:
        copies = placement.copies
        vectors = _HOST_EMBEDDINGS + _HOST_INPUTS * copies
        inputs = copies * (inputs + index_bytes(model, layers, load))
        compute = vectors * embedding_bytes(model, load) + layer_input_bytes(model, load) + inputs
    else:
        compute = _compute(model, load, mine, output=has_output) + inputs
    return Usage(
        weights=weights + experts + (model.output_weights if has_output else 0),
        kv_cache=sum(each.kv_cache for each in mine),
        compute=compute,
        output=logits_bytes(model, load),
    )


def _compute(model: Dimensions, load: Load, layers: Sequence[_Placed], *, output: bool) -> int:
    """Return the bytes of the largest step."""
    largest = max((each.compute for each in layers), default=0)
    if not output:
        return largest
    return max(largest, output_bytes(model, load) if layers else only_output_bytes(model, load))


def _projector(projector: Projector, load: Load, *, on_gpu: bool) -> Plan:
    usage = Usage(weights=projector.weights, compute=projector.compute)
    gpus, first = list(_unused(load.gpus)), load.gpus.first_local
    if not on_gpu or first is None:
        return Plan(tuple(gpus), usage)
    gpus[first] = usage
    return Plan(tuple(gpus), Usage())


def _unused(gpus: Gpus) -> tuple[Usage, ...]:
    return (Usage(),) * len(gpus.memory)
