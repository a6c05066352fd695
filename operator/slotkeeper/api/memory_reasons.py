"""Reasons of the condition FitsMemory."""

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reason_doc import ReasonDoc, Severity

MEMORY = ConditionType.FITS_MEMORY
REPLICAS = ConditionType.REPLICAS_READY

TABLE = (
    ReasonDoc(
        (MEMORY,),
        (Reason.FITS,),
        Severity.GOOD,
        "by its [plan](../concepts/memory.md), the model with all its slots fits into the GPUs; "
        "the message contains what it needs",
    ),
    ReasonDoc(
        (MEMORY, REPLICAS),
        (Reason.DOES_NOT_FIT,),
        Severity.PROBLEM,
        "by its [plan](../concepts/memory.md), the model with all its slots does not fit into the "
        "GPUs; the message contains what would. Replicas start nevertheless, unless `auto` finds "
        "no number: lower `slots`, `contextPerSlot` or `gpu.layers`, set `kvCacheType`, or use "
        "larger GPUs. If replicas are ready nevertheless, set a larger `gpu.memory`",
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.AUTO_NOT_CHOSEN,),
        Severity.PROBLEM,
        "no number can be chosen for `contextPerSlot: auto` or `gpu.layers: auto`, because the "
        "model is not planned, or the memory of the GPUs is not known; the message contains the "
        "reason. No replica starts, and running ones are kept: set a number, or what is missing",
    ),
    ReasonDoc(
        (MEMORY, REPLICAS, ConditionType.MODEL_READY),
        (Reason.READING_HEADER,),
        Severity.IN_PROGRESS,
        "a Job is reading the headers of the model's files; the message contains what it waits "
        "for. Only `auto` waits for it, and has the reason of the Job's problem",
    ),
    ReasonDoc(
        (MEMORY,),
        (Reason.GPU_MEMORY_UNKNOWN,),
        Severity.IN_PROGRESS,
        "the memory of the GPUs is not known, or no node has `gpu.minMemory`; the message contains "
        "why, and what to set",
    ),
    ReasonDoc(
        (MEMORY,),
        (Reason.NOT_PLANNED,),
        Severity.IN_PROGRESS,
        "the memory of this model, or with these settings, cannot be planned; the message contains "
        "the reason",
    ),
    ReasonDoc(
        (MEMORY,),
        (Reason.HEADER_UNAVAILABLE,),
        Severity.IN_PROGRESS,
        "the Job that reads the headers of the model's files has failed, or was rejected; the "
        "message contains the reason. There is another one after ten minutes, or an hour, or once "
        "it is deleted, and one that was rejected is tried again from ten seconds on",
    ),
)
