"""The results of a budget decision, with their reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from slotkeeper.scaling.budget.credits import Credits
from slotkeeper.scaling.budget.resources import Resources


class BudgetReason(StrEnum):
    """Why a model may have as many replicas as it may."""

    WITHIN_BUDGET = "WithinBudget"
    """As many as it requires."""
    EVICTED = "Evicted"
    """Idle replicas go, to make room for another model."""
    DRAINING = "Draining"
    """Replicas that are in use complete their requests and go: another model has waited longer than
    the maximum wait."""
    WAITING = "WaitingForBudget"
    """There is no room for the replicas that it requires."""
    EXCEEDS_BUDGET = "ExceedsBudget"
    """There never is: the budget is too small, or minReplicas of other models occupy it."""


@dataclass(frozen=True)
class Grant:
    """How many replicas a model may have now."""

    replicas: int
    reason: BudgetReason
    message: str
    """What decided, for people."""
    exceeds: str = ""
    """Of EXCEEDS_BUDGET: why there never is room. It contains nothing that changes with time."""


@dataclass(frozen=True)
class Eviction:
    """Replicas that go to make room."""

    model: str
    beneficiary: str
    """The model that gets the room."""
    before: int
    after: int
    drains: bool
    """Whether they are in use, and complete their requests before they go."""
    message: str


@dataclass(frozen=True)
class Memory:
    """What one decision leaves for the next. Empty after a restart, which loses only the credits
    of idle models and who was evicted last."""

    credits: Credits = field(default_factory=Credits)
    alive_at: Mapping[str, float] = field(default_factory=dict)
    """When each model had a replica for the last time."""
    wanted_since: Mapping[str, float] = field(default_factory=dict)
    """Since when each model without a replica has required one."""
    granted: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Replicas that were granted and are not observed yet, and when. They occupy their resources
    all the same: their creation may be under way."""
    failed: frozenset[str] = frozenset()
    """Models whose replicas could not start the last time."""


@dataclass(frozen=True)
class BudgetPlan:
    """A decision on all models of a gateway."""

    grants: Mapping[str, Grant]
    evictions: Sequence[Eviction]
    """In the order in which the models were selected: the least valuable first."""
    waiting: Sequence[str]
    """Models without the replicas that they require, the next one first."""
    used: Resources
    """What all replicas occupy, including those that start, terminate or are only granted."""
    memory: Memory
