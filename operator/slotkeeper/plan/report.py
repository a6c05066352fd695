"""The text of a plan: tables, and bars."""

from collections.abc import Sequence
from dataclasses import replace

from slotkeeper.llamacpp.memory.architectures import MEASURED
from slotkeeper.llamacpp.memory.dimensions import Dimensions
from slotkeeper.llamacpp.memory.fit import fits, most_context
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts, Usage, plan
from slotkeeper.llamacpp.memory.sizes import text, texts
from slotkeeper.llamacpp.memory.verdict import fullest

SLOTS = (1, 2, 4, 8, 16, 32, 64)

SMALLEST_CONTEXT = 4096
MAX_ROWS = 9

BAR = 50
"""Characters of the longest bar."""


def describe(model: Dimensions) -> str:
    """Return the model in one line, and how far its plan can be trusted."""
    line = (
        f"{model.architecture}: {_count(len(model.layers), 'layer')}, {text(model.weights)} of "
        f"weights, trained with {model.trained_context} tokens"
    )
    if model.architecture in MEASURED:
        return line
    return f"{line}\nnote: plans of this architecture have not been compared with llama-server"


def breakdown(parts: Parts, load: Load) -> str:
    """Return a table of the bytes by kind, of each GPU and of main memory."""
    planned = plan(parts, load)
    rows = [["", "weights", "KV cache", "compute", "output", "other", "total", "memory"]]
    for number, usage in enumerate(planned.gpus):
        total, memory = texts(usage.total, load.gpus.memory[number])
        rows.append([f"GPU {number}", *_kinds(usage), total, memory])
    rows.append(["main memory", *_kinds(planned.host), text(planned.host.total), ""])
    return _table(rows)


def main_memory(parts: Parts, load: Load) -> str:
    """Return what a load without GPUs needs, as a sentence."""
    need = text(plan(parts, load).host.total)
    return (
        f"{_count(load.slots)} x {load.context_per_slot} tokens need {need} of main memory, "
        "without GPUs"
    )


def slots_by_context(
    parts: Parts, load: Load, slots: Sequence[int], contexts: Sequence[int]
) -> str:
    """Return a table of what the fullest GPU, or main memory, needs; in brackets where it does not
    fit."""
    rows = [["context", *map(_count, slots)]]
    for context in contexts:
        row = load.with_context(context)
        rows.append([str(context), *(_cell(parts, replace(row, slots=each)) for each in slots)])
    return f"{_caption(load)}\n{_table(rows)}"


def _caption(load: Load) -> str:
    if not load.gpus.memory:
        return "main memory that is needed, without GPUs:"
    gpu = "the GPU" if len(load.gpus.memory) == 1 else "the fullest GPU"
    return f"memory that is needed of {gpu}, in brackets if the model does not fit:"


def contexts(model: Dimensions) -> list[int]:
    """Return the contexts of the table's rows."""
    last = model.trained_context or SMALLEST_CONTEXT
    found = [min(SMALLEST_CONTEXT, last)]
    while found[-1] * 2 <= last and len(found) < MAX_ROWS:
        found.append(found[-1] * 2)
    return found


def bars(parts: Parts, load: Load) -> str:
    """Return a bar for each number of slots, as long as the largest context that fits."""
    found = [(slots, most_context(parts, replace(load, slots=slots))) for slots in SLOTS]
    longest = max(context for _, context in found) or 1
    lines = (
        f"{_count(slots):>9}  {'#' * round(BAR * context / longest):<{BAR}}  {context or 'none'}"
        for slots, context in found
    )
    return "\n".join(["largest context of a slot that fits, in tokens:", *lines])


def _cell(parts: Parts, load: Load) -> str:
    planned = plan(parts, load)
    if not load.gpus.memory:
        return text(planned.host.total)
    gpu = fullest(planned, load.gpus.memory)
    need, _ = texts(planned.gpus[gpu].total, load.gpus.memory[gpu])
    return need if fits(parts, load) else f"({need})"


def _count(number: int, thing: str = "slot") -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _kinds(usage: Usage) -> list[str]:
    kinds = (usage.weights, usage.kv_cache, usage.compute, usage.output, usage.overhead)
    return [f"{size / 1024**2:.0f} MiB" for size in kinds]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            # The first column has names, the others have sizes.
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
