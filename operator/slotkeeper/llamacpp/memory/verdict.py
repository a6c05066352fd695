"""Whether a load fits, as a sentence, and what would fit instead."""

from collections.abc import Sequence
from dataclasses import dataclass

from slotkeeper.llamacpp.memory.fit import most_layers, most_slots
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts, Plan, Usage, plan
from slotkeeper.llamacpp.memory.sizes import text, texts


@dataclass(frozen=True)
class Verdict:
    """Result for a load with GPUs."""

    fits: bool
    message: str
    """Such as `8 slots x 8192 tokens need 18.3 GiB of 15.0 GiB; 4 slots fit`."""


def judge(parts: Parts, load: Load) -> Verdict:
    """Return whether a load fits on its GPUs, which must be at least one. Raises
    UnplannableError."""
    planned = plan(parts, load)
    gpu = fullest(planned, load.gpus.memory)
    need = planned.gpus[gpu]
    needed, available = texts(need.total, load.gpus.memory[gpu])
    message = (
        f"{load.slots} slot{'' if load.slots == 1 else 's'} x {load.context_per_slot} tokens"
        f"{_layers(parts, load)} need {needed} of {available}"
    )
    if len(load.gpus.memory) > 1:
        message += f" of GPU {gpu}"
    if planned.fits(load.gpus):
        return Verdict(fits=True, message=message)
    return Verdict(fits=False, message=f"{message}; {_instead(parts, load, need)}")


def fullest(planned: Plan, memory: Sequence[int]) -> int:
    """Return the index of the GPU that has the least memory left."""
    return min(range(len(memory)), key=lambda gpu: memory[gpu] - planned.gpus[gpu].total)


def _layers(parts: Parts, load: Load) -> str:
    every = len(parts.model.layers) + 1
    if load.gpus.layers >= every:
        return ""
    return f" with {load.gpus.layers} of {every} layers on GPUs"


def _instead(parts: Parts, load: Load, need: Usage) -> str:
    slots = min(most_slots(parts, load), load.slots)
    if slots:
        return f"{slots} slot{' fits' if slots == 1 else 's fit'}"
    every = len(parts.model.layers) + 1
    if layers := most_layers(parts, load):
        return f"no slot fits, but all of them fit with {layers} of {every} layers on GPUs"
    return (
        f"no slot fits: the weights need {text(need.weights)} and the driver {text(need.overhead)}"
    )
