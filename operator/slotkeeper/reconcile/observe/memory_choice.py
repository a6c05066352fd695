"""What `auto` of `contextPerSlot` and `gpu.layers` stands for. Pure."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from slotkeeper.api.automatic import AUTO, DEFAULT_CONTEXT, MAX_CONTEXT, MAX_LAYERS, MIN_CONTEXT
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.fit import most_context, most_layers
from slotkeeper.llamacpp.memory.load import GPU_OVERHEAD, Load
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.sizes import text, texts
from slotkeeper.reconcile.observe.memory import (
    Choice,
    Files,
    MemoryFacts,
    Verdict,
    knowledge,
    recorded,
)
from slotkeeper.reconcile.observe.problem import Problem


class Automatic(NamedTuple):
    """Which fields are `auto`."""

    context: bool
    layers: bool


def recorded_choice(server: LlamaServer, settings: str) -> Choice | None:
    """The choice in the status, where it was made for these settings and for all fields that are
    `auto`."""
    before = recorded(server)
    if before.settings != settings:
        return None
    spec = server.spec
    choice = Choice(
        before.context_per_slot if spec.context_per_slot == AUTO else None,
        before.gpu_layers if spec.gpu.layers == AUTO else None,
    )
    return choice if _is_complete(server, choice) else None


def choose(server: LlamaServer, facts: MemoryFacts) -> Choice | Problem:
    """Choose for a server with `auto`, or say why that is impossible, or has to wait.

    | auto | choice |
    |---|---|
    | contextPerSlot | the largest that fits, with the layers of the spec |
    | gpu.layers | the most that fit, with the context of the spec |
    | both | all layers and the largest context, unless it is less than 4096 tokens or the model's |
    | | otherwise 4096 tokens, or the model's, and the most layers |
    """
    known = knowledge(server, facts)
    if isinstance(known, Verdict):
        return _unknown(server, known, facts.delay)
    files, load = known
    spec = server.spec
    automatic = Automatic(spec.context_per_slot == AUTO, spec.gpu.layers == AUTO)
    try:
        choice = _chosen(files, load, automatic)
    except UnplannableError as error:
        return _unknown(server, Verdict(Reason.NOT_PLANNED, f"memory is not planned: {error}"))
    return choice or _nothing_fits(server, files.parts, load)


def with_choice(server: LlamaServer, choice: Choice) -> LlamaServer:
    """The server with numbers instead of `auto`."""
    spec = server.spec
    if choice.context_per_slot is not None:
        spec = spec.model_copy(update={"context_per_slot": choice.context_per_slot})
    if choice.layers is not None:
        gpu = spec.gpu.model_copy(update={"layers": choice.layers})
        spec = spec.model_copy(update={"gpu": gpu})
    return replace(server, spec=spec)


@lru_cache(maxsize=2048)
def _chosen(files: Files, load: Load, automatic: Automatic) -> Choice | None:
    """Return the choice; None if nothing fits. Raises UnplannableError."""
    parts = files.parts
    every = len(parts.model.layers) + 1
    if automatic.context:
        # Without a number of layers, the load has all of them.
        context = min(most_context(parts, load), MAX_CONTEXT)
        enough = _least(parts, DEFAULT_CONTEXT if automatic.layers else MIN_CONTEXT)
        if context >= enough:
            return Choice(context, min(every, MAX_LAYERS) if automatic.layers else None)
        if not automatic.layers:
            return None
        load = replace(load, context_per_slot=enough)
    layers = min(most_layers(parts, load), MAX_LAYERS)
    if not layers:
        return None
    return Choice(load.context_per_slot if automatic.context else None, layers)


def _least(parts: Parts, tokens: int) -> int:
    """Return so many tokens, or those that the model was trained with."""
    return min(tokens, parts.model.trained_context or tokens)


def _is_complete(server: LlamaServer, choice: Choice) -> bool:
    spec = server.spec
    has_context = choice.context_per_slot is not None or spec.context_per_slot != AUTO
    has_layers = choice.layers is not None or spec.gpu.layers != AUTO
    return has_context and has_layers


def _unknown(server: LlamaServer, lacking: Verdict, delay: Problem | None = None) -> Problem:
    if lacking.reason is Reason.READING_HEADER:
        # No pod of a replica shows what keeps one from starting.
        return Problem(delay.reason if delay else lacking.reason, lacking.message)
    fields = " and ".join(server.spec.automatic)
    remedy = f"{lacking.remedy}, or " if lacking.remedy else ""
    return Problem(
        Reason.AUTO_NOT_CHOSEN,
        f"auto of {fields} cannot be chosen, because {lacking.message}; {remedy}set a number "
        "instead",
    )


def _nothing_fits(server: LlamaServer, parts: Parts, load: Load) -> Problem:
    weights, memory = texts(parts.model.weights, load.gpus.memory[0])
    slots = f"{load.slots} slot{'' if load.slots == 1 else 's'}"
    what = f"no layer fits into the GPUs with {slots} x {load.context_per_slot} tokens"
    if server.spec.gpu.layers != AUTO:
        what = f"no context of {MIN_CONTEXT} tokens fits into the GPUs with {slots}"
    return Problem(
        Reason.DOES_NOT_FIT,
        f"{what}: the weights need {weights}, the driver {text(GPU_OVERHEAD)} of each GPU, and "
        f"each GPU has {memory}; lower slots, use larger GPUs, or set a number, with which "
        "replicas start although it does not fit by the plan",
    )
