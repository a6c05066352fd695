"""The status of a LlamaServer: what the operator says of it."""

from typing import Annotated, Any

from pydantic import Field, computed_field

from slotkeeper.api.conditions import Condition
from slotkeeper.api.validation import ApiModel

Count = Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
Word = Annotated[str, Field(max_length=128)]
Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]


class ModelStatus(ApiModel):
    """The model that is served."""

    source: Annotated[str, Field(max_length=2049)] = ""
    """URL that it is downloaded from, without its query, which may hold secrets."""

    file: Annotated[str, Field(max_length=2048)] = ""
    """File name of the model: the last part of its URL's path."""

    size_bytes: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    """Size of the file."""

    sha256: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 of the file, as model.sha256 takes it."""

    architecture: Word | None = None
    """What kind of model it says that it is. Example: qwen2"""

    context_length: Count | None = None
    """Tokens that it says that it was trained for."""

    layers: Count | None = None
    """Layers that it says that it has: what gpu.layers counts, less one for its output."""

    quantization: Word | None = None
    """What most of its tensors are. Example: Q4_K_M"""

    name: Word | None = None
    """What it calls itself. Example: Qwen2.5 7B Instruct"""

    size_label: Word | None = None
    """How large it says that it is. Example: 7B"""


class SlotsStatus(ApiModel):
    """The slots of all ready replicas."""

    total: Count = 0
    """Slots that there are."""

    busy: Count = 0
    """Slots that work on a request."""


class ScalingEvent(ApiModel):
    """A change of the number of replicas."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was decided, in RFC 3339."""

    from_: Annotated[Count, Field(alias="from")]
    """Replicas before it."""

    to: Count
    """Replicas after it."""

    reason: Annotated[str, Field(max_length=64)]
    """Why, as one word."""

    message: Annotated[str, Field(max_length=1024)]
    """Why, in slots."""


class ScalingStatus(ApiModel):
    """The last decision on the number of replicas."""

    current_replicas: Count = 0
    """Replicas that there are, ready or not."""

    desired_replicas: Count
    """Replicas that are wanted."""

    reason: Annotated[str, Field(max_length=64)]
    """Why, as one word: DemandAboveCapacity, QueueWaitAboveTarget, DemandBelowTarget, Idle,
    DesiredWithinRange, Stabilizing, RateLimited, AtMaxReplicas, OutOfBounds or MetricsUnavailable;
    Manual where autoscaling is not set, Suspended while suspend is true."""

    message: Annotated[str, Field(max_length=1024)]
    """Why, in slots. Example: "busy 4/4, queued 5, oldest 3.2 s: 2 -> 3"."""

    last_transition_time: (
        Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None
    ) = None
    """Since when this number is wanted for this reason, in RFC 3339."""

    history: Annotated[list[ScalingEvent], Field(max_length=10)] = Field(default_factory=list)
    """The last ten changes of the number of replicas, the newest first."""

    last_scale_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the number of replicas last changed, in RFC 3339."""


class LlamaServerStatus(ApiModel):
    """What there is, as the operator last saw it."""

    observed_generation: Generation = 0
    """The metadata.generation of the spec that this status was found for. Where it is behind, the
    operator has not acted on the newest spec yet."""

    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    """What holds and what does not: Ready sums up ModelReady, ReplicasReady and BalancerReady.
    `kubectl wait --for=condition=Ready llamaserver/NAME` waits for all of them. ScalingActive says
    whether demand sets the number of replicas, Degraded whether something has to be mended."""

    replicas: Count = 0
    """Replicas that there are, ready or not."""

    ready_replicas: Count = 0
    """Replicas that take requests."""

    selector: Annotated[str, Field(max_length=512)] = ""
    """Label selector of the replicas' pods, in text, for the scale subresource."""

    slots: SlotsStatus = SlotsStatus()
    """The slots of all ready replicas."""

    queued: Count = 0
    """Requests that wait in the balancer for a slot."""

    url: Annotated[str, Field(max_length=512)] = ""
    """URL for clients in the cluster: llama-server's HTTP API, with OpenAI's under /v1."""

    model: ModelStatus = ModelStatus()
    """The model that is served."""

    scaling: ScalingStatus | None = None
    """The last decision on the number of replicas."""

    @computed_field
    def replicas_ready(self) -> str:
        """Ready and existing replicas as "1/2", for `kubectl get`."""
        return f"{self.ready_replicas}/{self.replicas}"

    @computed_field
    def slots_in_use(self) -> str:
        """Busy and existing slots as "3/4", for `kubectl get`."""
        return f"{self.slots.busy}/{self.slots.total}"

    def tree(self) -> dict[str, Any]:
        """The status as its JSON tree, without what is not known."""
        return self.model_dump(by_alias=True, exclude_none=True)
