"""The budget of a gateway: from its spec, and for its status. Pure."""

from slotkeeper.api import gateway_status, quantity
from slotkeeper.api.conditions import rfc3339
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.gateway_status import BudgetEvent, BudgetStatus
from slotkeeper.reconcile.budgets import BudgetChange, GatewayBudget
from slotkeeper.reconcile.gateways.models import Models
from slotkeeper.scaling.budget.observation import Budget
from slotkeeper.scaling.budget.resources import describe, limits


def budget_of(gateway: LlamaGateway) -> Budget | None:
    """The budget that the spec sets; None where it sets none."""
    spec = gateway.spec.budget
    if spec is None:
        return None
    memory = None if spec.memory is None else float(quantity.parse(spec.memory))
    return Budget(
        limits(gpus=spec.gpus, memory=memory, models=spec.max_loaded_models),
        minimum_residency_seconds=spec.minimum_residency_seconds,
        maximum_wait_seconds=spec.maximum_wait_seconds,
    )


def budget_status(found: GatewayBudget | None, models: Models) -> BudgetStatus | None:
    """The budget as the status shows it; None without one, and before the first decision."""
    if found is None or found.last is None:
        return None
    limit = found.budget.limit
    names = {model.server.name: model.name for model in models.served}
    return BudgetStatus(
        used=describe(found.last.used, limit),
        limit=describe(limit, limit),
        history=[
            BudgetEvent(
                time=rfc3339(change.at),
                model=names.get(change.server, change.server),
                action=_action(change),
                message=_message(change),
            )
            for change in found.history
        ],
    )


def _action(change: BudgetChange) -> str:
    if change.after > change.before:
        return "ScaledUp" if change.before else "Loaded"
    return "ScaledDown" if change.after else "ScaledToZero"


def _message(change: BudgetChange) -> str:
    text = f"{change.before} -> {change.after}: {change.message}"
    return text[: gateway_status.MAX_BUDGET_MESSAGE]
