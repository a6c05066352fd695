"""The status of a LlamaServer, written by the operator."""

from typing import Annotated, Any

from pydantic import Field, computed_field

from slotkeeper.api.automatic import MAX_CONTEXT, MAX_LAYERS
from slotkeeper.api.conditions import Condition
from slotkeeper.api.serving import MAX_SLOTS
from slotkeeper.api.validation import ApiModel

Count = Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
ShortText = Annotated[str, Field(max_length=128)]
Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]

Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    ),
]


class ModelStatus(ApiModel):
    """The model. source comes from the spec, and so does file if the URL has it; the other fields
    come from the downloaded file."""

    source: Annotated[str, Field(max_length=2049)] = ""
    """URL of the download without its query, which may contain credentials.
    Example: https://example.com/model.gguf"""

    file: Annotated[str, Field(max_length=2048)] = ""
    """File name of the model, the last segment of the URL's path. Where the URL names no file, as
    hf://ORG/REPO:Q4_K_M and oci://REGISTRY/REPO:TAG, the name in the repository, artifact or image,
    from the end of the download on. Example: model.gguf"""

    size_bytes: Int64 | None = None
    """Size of the file in bytes; of a split model, of all its files. Example: 4683073184"""

    sha256: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 of the file, or of the first one of a split model, 64 hexadecimal digits as in
    spec.model.sha256.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    architecture: ShortText | None = None
    """Architecture of the model, from the file's header. Example: qwen2"""

    context_length: Count | None = None
    """Context in tokens that the model was trained with, from the file's header. Example: 32768"""

    layers: Count | None = None
    """Number of layers (blocks), from the file's header. spec.gpu.layers also counts the output
    layer. Example: 28"""

    quantization: ShortText | None = None
    """Quantization of most tensors, from the file's header. Example: Q4_K_M"""

    name: ShortText | None = None
    """Name of the model, from the file's header. Example: Qwen2.5 7B Instruct"""

    size_label: ShortText | None = None
    """Parameter count of the model as text, from the file's header. Example: 7B"""

    total_bytes: Annotated[Int64 | None, Field(alias="bytes")] = None
    """Size in bytes of all files that are being downloaded, with projector, adapters and draft.
    Only while a replica downloads, and once the sizes of all files are known.
    Example: 4683073184"""

    downloaded_bytes: Int64 | None = None
    """Bytes of them that are downloaded, by the replica that will have the model first. Only while
    a replica downloads. Example: 2013721469"""

    bytes_per_second: Int64 | None = None
    """Speed of that download in the last half minute. Example: 33371713"""

    seconds_left: Int64 | None = None
    """Time left for that download at this speed. Example: 80"""

    display: Annotated[str, Field(max_length=2048)] = ""
    """The column MODEL of `kubectl get`: the progress of the download, such as 43% 1m20s, or
    Checking, Verifying or Waiting; Failed while it has failed; then Loading while llama-server
    loads the model; else the file name, or NAME:TAG of an artifact whose files have none.
    Example: 43% 1m20s"""


class PromptCacheStatus(ApiModel):
    """The files of prompts, as the balancer reports them. Only with spec.promptCache."""

    total_bytes: Annotated[Int64, Field(alias="bytes")] = 0
    """Size of the files in bytes. Example: 2147483648"""

    files: Count = 0
    """Number of files, each of which has one prompt. Example: 56"""

    restored_tokens_last_hour: Int64 = 0
    """Tokens that were restored from files in the last hour, and not computed again.
    Example: 118550"""


class PrimeStatus(ApiModel):
    """The beginnings of prompts that new replicas compute, as the balancer reports them. Only with
    spec.prime."""

    prompts: Count = 0
    """Number of beginnings in spec.prime.prompts and its ConfigMap. Example: 2"""

    learned: Count = 0
    """Number of beginnings that the balancer has learned from requests. Example: 5"""

    tokens_last_hour: Int64 = 0
    """Tokens that new replicas computed before they got requests, in the last hour. Without the
    last part of one that a request or the time limit has ended. Example: 4123"""

    replicas: Count = 0
    """Number of replicas that compute beginnings now. They get queued requests at once.
    Example: 1"""


class GpuStatus(ApiModel):
    """What gpu.computeArch: auto stands for."""

    compute_arches: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)
    """CUDA compute capabilities of the nodes, when the image of replicas was chosen. It is chosen
    again while no replica has a node. Empty: no node had the label; the image is for all GPUs.
    Example: ["7.5"]"""


class MemoryStatus(ApiModel):
    """The plan of the GPUs' memory, as far as it is known. Only with GPUs."""

    gpu_bytes: Int64 | None = None
    """Memory of each GPU in bytes: spec.gpu.memory, or that of the smallest GPU in the labels of
    the nodes. Example: 16106127360"""

    needed_bytes: Int64 | None = None
    """What the fullest GPU needs, in bytes. Example: 13019971584"""

    slots: Annotated[Count | None, Field(le=MAX_SLOTS)] = None
    """Number of slots that fit with contextPerSlot, up to 256, the maximum of spec.slots.
    Example: 11"""

    context_per_slot: Annotated[Count | None, Field(le=MAX_CONTEXT)] = None
    """What was chosen for spec.contextPerSlot: auto, in tokens. Example: 16384"""

    gpu_layers: Annotated[Count | None, Field(le=MAX_LAYERS)] = None
    """What was chosen for spec.gpu.layers: auto. The output counts as a layer. Example: 33"""

    files: ShortText | None = None
    """Hash of the fields of the spec that name the files from which record or unplannable was read.
    After a change of these fields it differs, and the operator reads the new files.
    Example: 5ac1ab62"""

    record: Annotated[str, Field(max_length=4096)] | None = None
    """Sizes of these files, from their headers, for the operator."""

    unplannable: Annotated[str, Field(max_length=1024)] | None = None
    """Why their headers tell no sizes. Example: the memory of the architecture 't5' is not planned
    """

    release: ShortText | None = None
    """Release of Slotkeeper that wrote unplannable. Another release, which may plan more models,
    reads the files again. Example: 0.1.0"""

    settings: ShortText | None = None
    """Hash of the fields of the spec for which gpuBytes was read, and contextPerSlot and gpuLayers
    were chosen. After a change of these fields it differs, and the operator chooses again.
    Example: 0c3f9e11"""


class SpeculativeStatus(ApiModel):
    """Speculative decoding, as the balancer reports it. Only with spec.speculative."""

    acceptance_percent: Annotated[Count, Field(le=100)] | None = None
    """Percentage of the guessed tokens that were right, in the last ten minutes with requests. With
    a low one, speculation costs more than it saves: set a smaller maxTokens, a higher
    minProbability, or remove speculative. Example: 72"""

    inactive_replicas: Count = 0
    """Number of ready replicas that serve without it, as llama-server does if it does not accept
    the draft. Example: 0"""


class SlotsStatus(ApiModel):
    """The slots of all ready replicas."""

    total: Count = 0
    """Number of slots. Example: 8"""

    busy: Count = 0
    """Number of slots that process a request, without preemptible ones. Example: 3"""


class ScalingEvent(ApiModel):
    """One change of the desired number of replicas."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time of the decision, in RFC 3339."""

    from_: Annotated[Count, Field(alias="from")]
    """Desired number of replicas before the change. Example: 2"""

    to: Count
    """Desired number of replicas after the change. Example: 3"""

    reason: Annotated[str, Field(max_length=64)]
    """Reason for the change, as in scaling.reason. Example: QueueWaitAboveTarget"""

    message: Annotated[str, Field(max_length=1024)]
    """Details of the change, as in scaling.message."""


class ScalingStatus(ApiModel):
    """The last decision on the number of replicas, and recent changes."""

    current_replicas: Count = 0
    """Number of existing replicas, ready or not. Example: 2"""

    desired_replicas: Count
    """Desired number of replicas. Example: 3"""

    reason: Annotated[str, Field(max_length=64)]
    """Reason for the desired number: DemandAboveCapacity, QueueWaitAboveTarget, DemandBelowTarget,
    Idle, DesiredWithinRange, Stabilizing, RateLimited, AtMaxReplicas, OutOfBounds or
    MetricsUnavailable. GatewayBudget if the budget of a gateway does not allow more. Manual if
    autoscaling is not set, Suspended if suspend is true.
    Example: QueueWaitAboveTarget"""

    message: Annotated[str, Field(max_length=1024)]
    """Details of the decision, with its input in slots and requests.
    Example: "busy 4/4, queued 5, oldest 3.2 s: 2 -> 3\""""

    last_transition_time: (
        Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None
    ) = None
    """Time of the last change of desiredReplicas or reason, in RFC 3339."""

    history: Annotated[list[ScalingEvent], Field(max_length=10)] = Field(default_factory=list)
    """The last ten changes of the desired number of replicas, newest first."""

    last_scale_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Time of the last change of the desired number of replicas, in RFC 3339."""


class LlamaServerStatus(ApiModel):
    """Observed state of the LlamaServer."""

    observed_generation: Generation = 0
    """metadata.generation of the spec that this status was determined for. If it is lower than
    metadata.generation, the operator has not processed the latest spec."""

    conditions: Conditions = Field(default_factory=list[Condition])
    """Conditions of the LlamaServer. Ready summarizes ModelReady, ReplicasReady and BalancerReady;
    `kubectl wait --for=condition=Ready llamaserver/NAME` waits for it. ScalingActive: demand
    determines the number of replicas. PromptCacheActive, only with spec.promptCache: prompts are
    saved to files and restored. PromptsPrimed, only with spec.prime: new replicas compute the
    beginnings of prompts. FitsMemory, only with GPUs: by a plan, the model fits. Degraded: a
    problem needs attention."""

    replicas: Count = 0
    """Number of existing replicas, ready or not. Example: 2"""

    ready_replicas: Count = 0
    """Number of replicas that accept requests. Example: 2"""

    selector: Annotated[str, Field(max_length=512)] = ""
    """Label selector of the replicas' pods as text, for the scale subresource.
    Example: slotkeeper.dev/server=chat,slotkeeper.dev/component=replica"""

    slots: SlotsStatus = SlotsStatus()
    """The slots of all ready replicas."""

    queued: Count = 0
    """Number of requests in the balancer's queue, without preemptible ones and those of API keys at
    their limit of running requests. Example: 5"""

    url: Annotated[str, Field(max_length=512)] = ""
    """URL for clients in the cluster: llama-server's HTTP API, with OpenAI's API below /v1.
    Example: http://chat.default.svc"""

    model: ModelStatus = ModelStatus()
    """The model of the current spec."""

    scaling: ScalingStatus | None = None
    """The last decision on the number of replicas, and recent changes."""

    gpu: GpuStatus | None = None
    """What gpu.computeArch: auto stands for. Only with auto."""

    memory: MemoryStatus | None = None
    """The plan of the GPUs' memory. Only with GPUs."""

    speculative: SpeculativeStatus | None = None
    """Speculative decoding. Only with spec.speculative."""

    prompt_cache: PromptCacheStatus | None = None
    """The files of prompts. Only with spec.promptCache."""

    prime: PrimeStatus | None = None
    """The beginnings of prompts that new replicas compute. Only with spec.prime."""

    @computed_field
    def replicas_ready(self) -> str:
        """Ready replicas / all replicas, for the column of `kubectl get`. Example: 1/2"""
        return f"{self.ready_replicas}/{self.replicas}"

    @computed_field
    def slots_in_use(self) -> str:
        """Busy slots / all slots, for the column of `kubectl get`. Example: 3/8"""
        return f"{self.slots.busy}/{self.slots.total}"

    def tree(self) -> dict[str, Any]:
        """Return the status as a JSON tree without unknown values."""
        return self.model_dump(by_alias=True, exclude_none=True)
