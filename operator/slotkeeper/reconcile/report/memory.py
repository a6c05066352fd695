"""The condition FitsMemory, and the plan in the status. Pure."""

from slotkeeper import __version__
from slotkeeper.api.conditions import ConditionStatus, ConditionType, ConditionValue
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import MemoryStatus
from slotkeeper.reconcile.observe.memory import MemoryFacts, verdict
from slotkeeper.reconcile.observe.problem import Problem

KIND = ConditionType.FITS_MEMORY

_STATUSES: dict[bool | None, ConditionStatus] = {True: "True", False: "False", None: "Unknown"}


def memory_condition(
    server: LlamaServer, facts: MemoryFacts
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with GPUs, and a problem to fix.

    A plan keeps no replica from starting: it may be wrong.
    """
    found = verdict(server, facts)
    problem = Problem(found.reason, found.message) if found.fits is False else None
    message = f"{found.message}; {found.remedy}" if found.remedy else found.message
    return ConditionValue(KIND, _STATUSES[found.fits], found.reason, message), problem


def memory_status(server: LlamaServer, facts: MemoryFacts | None) -> MemoryStatus | None:
    """Return the part of the status; None without GPUs."""
    if facts is None:
        return None
    found = verdict(server, facts)
    header = facts.header
    return MemoryStatus(
        gpu_bytes=facts.gpu_bytes,
        needed_bytes=found.needed_bytes,
        slots=found.slots,
        context_per_slot=facts.choice.context_per_slot,
        gpu_layers=facts.choice.layers,
        files=facts.files if header else None,
        record=header.record or None if header else None,
        unplannable=header.unplannable or None if header else None,
        release=__version__ if header and header.unplannable else None,
        settings=facts.settings,
    )
