"""The resource LlamaServer and its spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from slotkeeper.api import automatic, prime, prompt_cache, sampling, serving, speculative, workers
from slotkeeper.api.automatic import DEFAULT_CONTEXT, ContextPerSlot
from slotkeeper.api.autoscaling import Autoscaling, Replicas
from slotkeeper.api.balancer import Balancer
from slotkeeper.api.compute_capability import AUTO
from slotkeeper.api.extra_args import ExtraArgs
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.group import KIND
from slotkeeper.api.model import Model
from slotkeeper.api.placement import Placement
from slotkeeper.api.pod_template import PodTemplate
from slotkeeper.api.prime import Prime
from slotkeeper.api.prompt_cache import PromptCache
from slotkeeper.api.pull_secrets import PullSecrets
from slotkeeper.api.resource import SERVICE_NAME, Resource, parse_spec, resource_fields
from slotkeeper.api.resources import Resources
from slotkeeper.api.sampling import Sampling
from slotkeeper.api.serving import (
    MAX_SLOTS,
    ChatTemplate,
    ChatTemplateKwargs,
    Embeddings,
    FlashAttention,
    KvCacheType,
    Reasoning,
)
from slotkeeper.api.speculative import Speculative
from slotkeeper.api.update import Update
from slotkeeper.api.validation import ApiModel, Rule, matches
from slotkeeper.api.workers import Workers

NAME_RULES = (
    SERVICE_NAME,
    Rule(
        "!self.endsWith('-replicas') && !self.endsWith('-workers')",
        "must not end with '-replicas' or '-workers': Services of another server may have that "
        "name",
        lambda name: not name.endswith(("-replicas", "-workers")),
    ),
)
"""Rules of `metadata.name`."""


ListenAddress = Annotated[Literal["::", "0.0.0.0"], Field(json_schema_extra={"maxLength": 7})]


class LlamaServerSpec(ApiModel):
    """Desired state: the model, its slots, the resources of a replica, and the number of
    replicas."""

    rules: ClassVar = (
        Rule(
            "!(self.gpu.resourceName in self.?resources.?limits.orValue({}))",
            "resources.limits must not contain gpu.resourceName: set gpu.count",
            lambda spec: spec.gpu.resource_name not in spec.resources.limits,
        ),
        Rule(
            "!(self.gpu.resourceName in self.?resources.?requests.orValue({}))",
            "resources.requests must not contain gpu.resourceName: set gpu.count",
            lambda spec: spec.gpu.resource_name not in spec.resources.requests,
        ),
        *automatic.RULES,
        *workers.RULES,
        *serving.RULES,
        *prompt_cache.RULES,
        *prime.RULES,
        *sampling.RULES,
        *speculative.RULES,
    )

    model: Model
    """The model, and the files that are loaded with it.
    Example: {url: "https://example.com/model.gguf"}"""

    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS, json_schema_extra={"format": "int32"})] = 4
    """Number of requests that one replica processes concurrently, 1 to 256. Further requests are
    queued in the balancer. More slots increase the throughput, but slow down each request and need
    memory for contextPerSlot tokens each. Default: 4. Example: 8"""

    context_per_slot: ContextPerSlot = DEFAULT_CONTEXT
    """Context of each slot in tokens, for prompt and response together, 256 to 16777216. It is
    reserved: a long request never uses the context of another slot. auto: the largest with which
    all slots fit into the GPUs, up to that of the model's training. It is chosen before the first
    replica starts, as status.memory shows, and again when the model or a setting of it changes.
    Default: 4096. Example: 32768"""

    kv_cache_type: KvCacheType = "f16"
    """Data type of the KV cache. q8_0 takes half of the memory of f16, with hardly any loss of
    quality; q4_0 takes a quarter, with a noticeable loss. Quantized types need flash attention.
    Default: f16. Example: q8_0"""

    flash_attention: FlashAttention = "auto"
    """Flash attention, which needs less memory and is mostly faster: enabled, disabled, or auto,
    which enables it if the GPU supports it. Default: auto. Example: enabled"""

    context_checkpoints: (
        Annotated[int, Field(ge=0, le=1024, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Maximum number of checkpoints of each slot in main memory, 0 to 1024. Models with sliding
    windows, recurrent or hybrid ones can continue a prompt that changed near its end from a
    checkpoint only; others need none. One takes from some MiB to hundreds of MiB: llama-server logs
    its size. 0: none. Default: llama-server's, which is 32. Example: 8"""

    jinja: bool = True
    """Whether chat templates are Jinja templates, as in most models. Required for tool calls.
    false: a built-in template of llama.cpp, for a model with a Jinja template that llama.cpp cannot
    parse. Default: true. Example: false"""

    chat_template: ChatTemplate | None = None
    """Template that turns chat messages into a prompt: a Jinja template of up to 32767 characters,
    or chatml. With jinja: false, the name of a built-in template of llama.cpp, such as llama3.
    Default: the model's template. Example: chatml"""

    chat_template_kwargs: ChatTemplateKwargs | None = None
    """Values of variables of the chat template, up to 8 with up to 32 KiB in all. A request may set
    others in its chat_template_kwargs. Not enable_thinking, which is reasoning.enabled. Default:
    none. Example: {reasoning_effort: high}"""

    reasoning: Reasoning = Reasoning()
    """Reasoning (thinking) of the model before its answer. Default: according to the model's chat
    format, without a limit. Example: {format: deepseek, budgetTokens: 2048}"""

    sampling: Sampling | None = None
    """Default sampling parameters, for requests without them: for example, what the model's
    authors recommend. Default: those in the model's file, or else llama-server's.
    Example: {temperature: 0.7, topK: 20, topP: 0.8, minP: 0}"""

    speculative: Speculative | None = None
    """Set for speculative decoding, which makes responses faster if slots are idle: verified tokens
    cost computing time that other slots could use. Default: none.
    Example: {type: ngram-mod}"""

    embeddings: Embeddings | None = None
    """Set for an embedding model or a reranker, which serves /v1/embeddings or /v1/rerank, but no
    chats. An input of up to contextPerSlot tokens is computed in one batch, which takes GPU memory:
    set contextPerSlot to the length of the longest input. Default: a text generation model.
    Example: {pooling: mean}"""

    extra_args: ExtraArgs = Field(default_factory=list)
    """Additional arguments of llama-server, up to 64 of up to 4096 characters each. A flag and its
    value are two items. They are passed as they are written; variables, `$(NAME)`, are rejected.
    Flags that the operator sets are rejected with the field to set instead. A flag that the image's
    llama-server does not support stops it. Default: none. Example: ["--mirostat", "2"]"""

    gpu: Gpu = Gpu()
    """GPUs of one replica. Default: one nvidia.com/gpu of any kind.
    Example: {count: 2, computeArch: 8.6}"""

    workers: Workers | None = None
    """Set for a model that is too large for the GPUs of one node. Each replica is then a group of
    pods, which are started, scaled and replaced together. The leader, a llama-server, computes on
    the GPUs of its workers over llama.cpp's RPC. Its image must be built with RPC, and have
    ggml-rpc-server on its PATH or in /app. Only leaders can connect to workers if the cluster
    enforces NetworkPolicies. Setting or removing workers replaces all replicas at once.
    Default: a replica is one pod. Example: {count: 3}"""

    resources: Resources = Field(default_factory=Resources)
    """CPU and memory of one replica, as the resources of a container. The memory limit also bounds
    llama-server's prompt cache (a quarter of the limit, at most 2 GiB), and the CPU limit its
    threads. GPUs are requested by gpu. Default: no requests and no limits.
    Example: {requests: {cpu: 2, memory: 8Gi}, limits: {memory: 16Gi}}"""

    listen_address: ListenAddress = "::"
    """Address that llama-server listens on. "::": all IPv4 and IPv6 addresses. "0.0.0.0": IPv4
    only, for nodes whose kernel has no IPv6. Default: "::". Example: "0.0.0.0"
    """
    unresponsive_seconds: Annotated[
        int,
        Field(ge=0, le=86_400, json_schema_extra={"format": "int32"}),
        Rule(
            "self == 0 || self >= 60",
            "must be 0, or at least 60",
            lambda seconds: seconds == 0 or seconds >= 60,
        ),
    ] = 600
    """Seconds without a response of llama-server's /slots, after which its container is restarted,
    60 to 86400. llama-server responds between two batches of a prompt: set more where a CPU
    computes one batch (--batch-size, 2048 tokens) for longer. 0: it is never restarted. Default:
    600. Example: 3600"""

    prompt_cache: PromptCache | None = None
    """Set to save computed prompts to files before a replica terminates, and to restore them in
    another one, where that is quicker than to compute them again. The files contain what users
    wrote. Default: prompts are lost with their replica. Example: {claimName: prompts}"""

    prime: Prime | None = None
    """Set to compute beginnings that many prompts share, such as system prompts, on each new
    replica before it gets requests. Default: they are computed with the first request of each.
    Example: {configMapName: beginnings}"""

    image: (
        Annotated[
            str,
            Field(min_length=1, max_length=1024),
            matches(
                "[-._:/@+\\[\\]A-Za-z0-9]+",
                "must be the name of an image, without spaces, such as "
                "ghcr.io/ggml-org/llama.cpp:server-cuda",
            ),
        ]
        | None
    ) = None
    """Image of llama-server, up to 1024 characters. Its entrypoint must be llama-server, as in
    llama.cpp's own images. With sh and curl in the image, a replica completes its requests before
    it terminates. Default: the image that the operator was installed with.
    Example: ghcr.io/ggml-org/llama.cpp:server-cuda"""

    image_pull_secrets: PullSecrets = Field(default_factory=list)
    """Secrets for pulling the images of replicas and balancers, in the server's namespace, up to
    16. Default: none. Example: [{name: registry}]"""

    replicas: Replicas = 1
    """Number of replicas, 0 to 1000. Ignored if autoscaling is set. `kubectl scale` sets it.
    Default: 1. Example: 3"""

    suspend: bool = False
    """true: no replica and no balancer runs, whatever other fields are set to, and clients cannot
    connect. All other objects are kept; false starts the pods again. Default: false. Example: true
    """

    autoscaling: Autoscaling | None = None
    """Set to scale the number of replicas with demand. Default: a fixed number, replicas.
    Example: {minReplicas: 0, maxReplicas: 4}"""

    balancer: Balancer = Balancer()
    """Queue, access and deployment of the balancers. A change restarts the balancers one after the
    other, and no replica. Default: two balancers that forward all requests.
    Example: {maxQueuedRequests: 200}"""

    update: Update = Update()
    """Replacement of replicas when their spec changes. Default: one at a time. With GPUs a replica
    terminates before its successor starts, because there may be no spare GPU.
    Example: {maxSurge: 1, drainTimeoutSeconds: 1800}"""

    placement: Placement = Placement()
    """Scheduling of replicas to nodes. Default: any node with sufficient resources.
    Example: {tolerations: [{key: nvidia.com/gpu, operator: Exists}]}"""

    pod_template: PodTemplate = PodTemplate()
    """Additions to the pods of replicas. Default: none. Example: {labels: {team: search}}"""

    @property
    def context_tokens(self) -> int:
        """contextPerSlot; before auto is chosen, the default."""
        return DEFAULT_CONTEXT if self.context_per_slot == AUTO else int(self.context_per_slot)

    @property
    def automatic(self) -> list[str]:
        """The fields whose numbers are to be chosen by the memory of the GPUs."""
        fields = {"contextPerSlot": self.context_per_slot, "gpu.layers": self.gpu.layers}
        return [name for name, value in fields.items() if value == AUTO]

    @property
    def pods_per_replica(self) -> int:
        """The llama-server plus its workers, if any."""
        return 1 + (self.workers.count if self.workers else 0)

    @property
    def prefetch(self) -> bool:
        """Whether the model is downloaded before a replica is desired."""
        if self.model.prefetch is not None:
            return self.model.prefetch
        to_zero = self.autoscaling is not None and self.autoscaling.may_be_zero
        return to_zero and self.model.cache.outlives_pods


@dataclass(frozen=True)
class LlamaServer(Resource):
    """A LlamaServer as read from the cluster."""

    spec: LlamaServerSpec
    kind: ClassVar = KIND
    noun: ClassVar = "server"
    chosen_arches: tuple[str, ...] = ()
    """What `auto` of gpu.computeArch stands for: compute capabilities, or none for all of them."""

    @property
    def compute_arches(self) -> tuple[str, ...]:
        """Compute capabilities, such as 7.5, of which the GPUs of a replica must have one; none for
        all of them."""
        arch = self.spec.gpu.compute_arch
        if arch == AUTO:
            return self.chosen_arches
        return () if arch is None else (arch,)

    @property
    def model_name(self) -> str:
        """Name of the model in responses and in /v1/models."""
        return self.spec.model.alias or self.name

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "LlamaServer":
        """Parse a LlamaServer from its JSON tree.

        Raises InvalidSpec if the spec or the name breaks a rule. The API server rejects such a
        server, but may still store one that was created under an older schema.
        """
        return cls(spec=parse_spec(LlamaServerSpec, NAME_RULES, raw), **resource_fields(raw))
