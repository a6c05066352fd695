"""The LlamaServer: what a user writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from slotkeeper.api import serving, workers
from slotkeeper.api.autoscaling import Autoscaling, Replicas
from slotkeeper.api.balancer import Balancer
from slotkeeper.api.extra_args import ExtraArgs
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.model import Model
from slotkeeper.api.placement import Name, Placement
from slotkeeper.api.pod_template import PodTemplate
from slotkeeper.api.resources import Resources
from slotkeeper.api.serving import ChatTemplate, Embeddings, FlashAttention, KvCacheType, Reasoning
from slotkeeper.api.update import Update
from slotkeeper.api.validation import ApiModel, Rule, matches
from slotkeeper.api.workers import Workers

NAME_RULES = (
    matches(
        "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        "must be 1 to 63 lower-case letters, digits and '-', start with a letter and not end "
        "with '-': it names the Service that clients use",
    ),
    Rule(
        "!self.endsWith('-replicas') && !self.endsWith('-workers')",
        "must not end with '-replicas' or '-workers': the Service of another server's replicas may "
        "have that name",
        lambda name: not name.endswith(("-replicas", "-workers")),
    ),
)
"""What must hold of `metadata.name`."""


class PullSecret(ApiModel):
    """A Secret with the credentials of a registry."""

    name: Name
    """Its name, in the server's namespace. Example: registry"""


class LlamaServerSpec(ApiModel):
    """What is wanted: a model, its slots, and what one replica needs."""

    rules: ClassVar = (
        Rule(
            "!(self.gpu.resourceName in self.?resources.?limits.orValue({}))",
            "resources.limits must not name the GPU: say how many in gpu.count",
            lambda spec: spec.gpu.resource_name not in spec.resources.limits,
        ),
        Rule(
            "!(self.gpu.resourceName in self.?resources.?requests.orValue({}))",
            "resources.requests must not name the GPU: say how many in gpu.count",
            lambda spec: spec.gpu.resource_name not in spec.resources.requests,
        ),
        *workers.RULES,
        *serving.RULES,
    )

    model: Model
    """Where the model comes from."""

    slots: Annotated[int, Field(ge=1, le=256, json_schema_extra={"format": "int32"})] = 4
    """Requests that one replica works on at the same time, at least 1. Further ones wait in the
    balancer. More slots raise the throughput, slow each request down and take memory for
    contextPerSlot tokens each. Default: 4. Example: 8"""

    context_per_slot: Annotated[
        int, Field(ge=256, le=16_777_216, json_schema_extra={"format": "int32"})
    ] = 4096
    """Tokens, prompt and answer together, that each slot has room for, at least 256. A slot's room
    is its own: a long request never takes another's. Default: 4096. Example: 32768"""

    kv_cache_type: KvCacheType = "f16"
    """Type that the KV cache is kept in: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl.
    q8_0 takes half of what f16 takes and is hard to tell from it; q4_0 takes a quarter and is not.
    The quantised ones need flash attention. Default: f16. Example: q8_0"""

    flash_attention: FlashAttention = "auto"
    """Whether attention is computed with less memory and mostly faster: enabled, disabled, or auto
    for wherever the GPU can. Default: auto. Example: enabled"""

    jinja: bool = True
    """Whether chat templates are Jinja, as models bring them. Tool calls need it. false: one of
    llama.cpp's own templates, for a model whose Jinja template it cannot read. Default: true.
    Example: false"""

    chat_template: ChatTemplate | None = None
    """Template that makes a prompt of a chat's messages: a Jinja text of up to 32767 characters, or
    chatml; with jinja: false the name of one of llama.cpp's built-in templates, such as llama3.
    Default: the model's own. Example: chatml"""

    reasoning: Reasoning = Reasoning()
    """What becomes of the thoughts that a model writes before its answer. Default: as the model's
    chat format has it, without a bound. Example: {format: deepseek, budgetTokens: 2048}"""

    embeddings: Embeddings | None = None
    """Set for an embedding model, or a reranker: it answers /v1/embeddings or /v1/rerank, and no
    chats. An input of up to contextPerSlot tokens is computed in one batch, which takes GPU memory:
    keep contextPerSlot as small as inputs are. Default: a model that writes text.
    Example: {pooling: mean}"""

    extra_args: ExtraArgs = Field(default_factory=list)
    """Further arguments for llama-server, a flag and its value as two items, up to 64 of up to 4096
    characters; as in a container's args, $(NAME) stands for a variable and $$ for $. Flags that the
    operator sets are refused, each with the field to use instead. A flag that the image's
    llama-server does not know stops it. Default: none. Example: ["--top-k", "20"]"""

    gpu: Gpu = Gpu()
    """The GPUs that one replica needs. Default: one nvidia.com/gpu of any kind.
    Example: {count: 2, computeArch: 8.6}"""

    workers: Workers | None = None
    """Set for a model that fits the GPUs of no node: each replica is then a group of pods, which
    is started, gated, scaled and replaced as one. The leader, a llama-server, computes with its
    workers' GPUs over llama.cpp's RPC, which its image has to be built with: ggml-rpc-server must
    be on its PATH or in /app. Only leaders may reach workers, where the cluster enforces
    NetworkPolicies. Setting or removing it replaces all replicas at once. Default: a replica is
    one pod. Example: {count: 3}"""

    resources: Resources = Field(default_factory=Resources)
    """CPU and memory of one replica, as a container's resources. The memory limit also bounds
    llama-server's prompt cache (a quarter of it, at most 2 GiB), and the CPU limit its threads.
    GPUs are asked for in gpu. Default: nothing requested, nothing limited.
    Example: {requests: {cpu: 2, memory: 8Gi}, limits: {memory: 16Gi}}"""

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Image to run instead of the operator's own. Its entrypoint must be llama-server, as that of
    llama.cpp's own images is; with sh and curl in it a replica ends its running requests before
    it goes. Default: the image that the operator was installed with.
    Example: ghcr.io/ggml-org/llama.cpp:server-cuda"""

    image_pull_secrets: Annotated[
        list[PullSecret],
        Field(max_length=16),
        Rule(
            "self.all(one, self.exists_one(other, other.name == one.name))",
            "must not name a Secret twice",
            lambda secrets: len({secret.name for secret in secrets}) == len(secrets),
        ),
    ] = Field(default_factory=list)
    """Secrets that nodes pull the images of replicas and balancers with, up to 16. They must be in
    the server's namespace. Default: none. Example: [{name: registry}]"""

    replicas: Replicas = 1
    """Replicas that run while autoscaling is not set; then it says how many. `kubectl scale` sets
    it. Default: 1. Example: 3"""

    suspend: bool = False
    """true: nothing of the server runs, no replica and no balancer, whatever else is said; clients
    are refused. What it was made of stays, and false brings it back. Default: false. Example: true
    """

    autoscaling: Autoscaling | None = None
    """Set to let demand say how many replicas run. Default: as many as replicas says.
    Example: {minReplicas: 0, maxReplicas: 4}"""

    balancer: Balancer = Balancer()
    """How requests wait for slots, who may send them, and how many balancers there are. A change
    restarts balancers, one after the other, and no replica. Default: two balancers that take all
    requests. Example: {maxQueuedRequests: 200}"""

    update: Update = Update()
    """How replicas of an older spec give way to those of a newer one. Default: one after the other;
    with GPUs each ends before its successor starts, since a spare GPU may not exist.
    Example: {maxSurge: 1, drainTimeoutSeconds: 1800}"""

    placement: Placement = Placement()
    """The nodes that replicas run on. Default: any that have room.
    Example: {tolerations: [{key: nvidia.com/gpu, operator: Exists}]}"""

    pod_template: PodTemplate = PodTemplate()
    """What the replicas' pods have beside what the operator gives them. Default: nothing.
    Example: {labels: {team: search}}"""

    @property
    def pods_per_replica(self) -> int:
        """The llama-server, and its workers if it has any."""
        return 1 + (self.workers.count if self.workers else 0)


class InvalidSpec(ValueError):  # noqa: N818 (a condition's reason, and read as one)
    """A LlamaServer that says what cannot be. Its message names the field and what is allowed."""


@dataclass(frozen=True)
class LlamaServer:
    """One LlamaServer as it was read from the cluster."""

    name: str
    namespace: str
    uid: str
    generation: int
    deleting: bool
    """It has been deleted and is only waiting for its finalizers."""
    spec: LlamaServerSpec
    status: Mapping[str, Any]
    """The status as it was read; empty where none was written yet."""

    @property
    def model_name(self) -> str:
        """What the model is called in answers and in /v1/models."""
        return self.spec.model.alias or self.name

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "LlamaServer":
        """Read a LlamaServer from its JSON tree.

        Raises InvalidSpec where the spec or the name breaks a rule. The API server refuses those;
        but one stored under an older schema may still come along.
        """
        metadata = raw["metadata"]
        try:
            for rule in NAME_RULES:
                rule.check(metadata["name"])
        except ValueError as error:
            raise InvalidSpec(f"metadata.name: {error}") from None
        try:
            spec = LlamaServerSpec.model_validate(raw.get("spec") or {})
        except ValidationError as error:
            raise InvalidSpec(_sentence(error)) from None
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            deleting="deletionTimestamp" in metadata,
            spec=spec,
            status=raw.get("status") or {},
        )


def _sentence(error: ValidationError) -> str:
    problems = (
        (".".join(str(part) for part in ("spec", *problem["loc"])), problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return "; ".join(
        f"{path}: {message.removeprefix('Value error, ')}" for path, message in problems
    )
