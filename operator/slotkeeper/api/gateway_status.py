"""The status of a LlamaGateway, written by the operator."""

from typing import Annotated, Any

from pydantic import Field, computed_field

from slotkeeper.api.conditions import Condition
from slotkeeper.api.model_state import ModelState
from slotkeeper.api.status import Conditions, Count, Generation, ShortText
from slotkeeper.api.validation import ApiModel

MAX_MODELS = 200
"""Models in the status: a status has a bounded size."""

MAX_MESSAGE = 256
"""Characters of a model's message."""


MAX_BUDGET_MESSAGE = 1024
"""Characters of the message of a decision."""


class GatewayModel(ApiModel):
    """One model of the gateway."""

    name: ShortText
    """Name of the model, for requests. Example: qwen"""

    server: ShortText
    """Name of the LlamaServer. Example: qwen"""

    state: ModelState
    """State of the model. Ready: a replica accepts requests. Waking: replicas are starting. AtZero:
    no replica exists, the next request starts one. Failed: no replica can start, or none is to, see
    message. Example: Ready"""

    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    """Details of the state, for people; empty if it needs none."""


class BudgetEvent(ApiModel):
    """One decision of the budget."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time of the decision, in RFC 3339."""

    model: ShortText
    """Name of the model whose replicas changed. Example: qwen"""

    action: ShortText
    """What was done with the model: Loaded, ScaledUp, ScaledDown or ScaledToZero.
    Example: ScaledToZero"""

    message: Annotated[str, Field(max_length=MAX_BUDGET_MESSAGE)]
    """Reason for the decision, with its input."""


class BudgetStatus(ApiModel):
    """Use of the budget, and recent decisions."""

    used: ShortText
    """What the replicas occupy, also while they start or terminate. Example: 3 GPUs, 2 models"""

    limit: ShortText
    """The budget. Example: 4 GPUs, 3 models"""

    history: Annotated[list[BudgetEvent], Field(max_length=10)] = Field(default_factory=list)
    """The last ten decisions, newest first."""


class LlamaGatewayStatus(ApiModel):
    """Observed state of the LlamaGateway."""

    observed_generation: Generation = 0
    """metadata.generation of the spec that this status was determined for. If it is lower than
    metadata.generation, the operator has not processed the latest spec."""

    conditions: Conditions = Field(default_factory=list[Condition])
    """Conditions of the LlamaGateway. Ready: gateway pods of the current spec accept requests;
    `kubectl wait --for=condition=Ready llamagateway/NAME` waits for it. Degraded: a problem needs
    attention."""

    url: Annotated[str, Field(max_length=512)] = ""
    """URL for clients in the cluster. Example: http://llm.default.svc"""

    ready_replicas: Count = 0
    """Number of gateway pods that accept requests. Example: 2"""

    models: Annotated[list[GatewayModel], Field(max_length=MAX_MODELS)] = Field(
        default_factory=list
    )
    """Models of the selected servers, sorted by name, up to 200."""

    model_count: Count = 0
    """Number of models. Example: 3"""

    ready_models: Count = 0
    """Number of models in state Ready. Example: 1"""

    budget: BudgetStatus | None = None
    """Use of spec.budget, and recent decisions."""

    @computed_field
    def models_ready(self) -> str:
        """Ready models / all models, for the column of `kubectl get`. Example: 1/3"""
        return f"{self.ready_models}/{self.model_count}"

    def tree(self) -> dict[str, Any]:
        """Return the status as a JSON tree without unknown values."""
        return self.model_dump(by_alias=True, exclude_none=True)
