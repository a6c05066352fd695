"""Why a child cannot be made. Pure."""

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.group import KIND
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import ApiError
from slotkeeper.reconcile.observe.pods import Problem
from slotkeeper.reconcile.report.conditions import condition
from slotkeeper.reconcile.write.plan import Plan

INTERNAL = 500
WEBHOOK = "failed calling webhook"
"""What the API server answers where an admission webhook that has to be asked is away."""

_REASONS = {Reason.APPLY_REJECTED, Reason.NAME_CONFLICT, Reason.WAITING_FOR_DELETION}


def name_conflict(plan: Plan, server: LlamaServer) -> Problem | None:
    """What stands under a child's name and is not this server's; None where nothing does."""
    for item in plan.not_owned:
        child = f"{item['kind']} {item['metadata']['name']}"
        owners = item["metadata"].get("ownerReferences") or []
        if any(owner["kind"] == KIND and owner["name"] == server.name for owner in owners):
            return Problem(
                Reason.WAITING_FOR_DELETION,
                f"{child} of the deleted server of this name still goes",
            )
        return Problem(
            Reason.NAME_CONFLICT, f"{child} is there already and does not belong to this server"
        )
    return None


def last_apply_error(server: LlamaServer) -> Problem | None:
    """Why a child could not be made when it was last tried, as the status tells; None where all
    were."""
    ready = condition(server.status, ConditionType.READY)
    if ready.get("reason") not in _REASONS:
        return None
    return Problem(Reason(ready["reason"]), ready["message"])


def replicas_were_desired(server: LlamaServer) -> bool:
    """Whether replicas were wanted when that was refused."""
    return bool(
        last_apply_error(server) and server.status.get("scaling", {}).get("desiredReplicas")
    )


def is_permanent(error: ApiError) -> bool:
    """Whether the API server refused what was asked, rather than just not now."""
    if error.status == INTERNAL and WEBHOOK in error.message:
        # As good as one that refuses, for as long as it does not answer.
        return True
    return 400 <= error.status < 500 and error.status not in {404, 408, 409, 410, 429}
