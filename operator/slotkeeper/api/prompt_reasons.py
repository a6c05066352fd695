"""Why prompts are not restored from files, or not computed in advance."""

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reason_doc import ReasonDoc, Severity

_FILES = ConditionType.PROMPT_CACHE_ACTIVE
_PRIMED = ConditionType.PROMPTS_PRIMED
_PROBLEM = Severity.PROBLEM

PROBLEMS = (
    ReasonDoc(
        (_FILES,),
        (Reason.NOT_HONORED,),
        _PROBLEM,
        "llama-server computed prompts again although they had been restored, as for some models "
        "with a recurrent state, or its build writes files that the agent rejects: remove "
        "`promptCache`, which is of no use to this model and build",
    ),
    ReasonDoc(
        (_FILES,),
        (Reason.FOLDER_FULL,),
        _PROBLEM,
        "a prompt does not fit into `promptCache.sizeLimit`, or the disk is full: increase one of "
        "the two",
    ),
    ReasonDoc(
        (_FILES,),
        (Reason.UNREACHABLE,),
        _PROBLEM,
        "the balancer does not reach the container `prompt-files` of the replicas on port 9094: "
        "check the network, and the container's log",
    ),
    ReasonDoc(
        (_PRIMED,),
        (Reason.PROMPT_INVALID,),
        _PROBLEM,
        "a prompt of `prime` cannot be used, or its ConfigMap does not exist or has no keys; "
        "replicas compute the others. The message has the cause. What a replica has rejected is "
        "reported until it is changed, or the next replica computes it",
    ),
    ReasonDoc(
        (_PRIMED,),
        (Reason.PRIMING_FAILED,),
        _PROBLEM,
        "the last new replica did not compute all prompts of `prime` within its `maxSeconds`, or "
        "its llama-server failed meanwhile; it serves requests. Use fewer or shorter prompts, or "
        "increase `maxSeconds`. With a prompt that is not computed any more, llama-server ended "
        "twice: change it",
    ),
)
