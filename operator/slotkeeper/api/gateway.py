"""The resource LlamaGateway and its spec."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from slotkeeper.api import balancer_memory, gateway_memory, quantity
from slotkeeper.api.balancer import Size
from slotkeeper.api.gateway_backends import ExternalBackend, ExternalBackends
from slotkeeper.api.gateway_batches import GatewayBatches
from slotkeeper.api.gateway_keys import GatewayApiKeys
from slotkeeper.api.gateway_routes import Fallback, Fallbacks, Route, Routes, Shadow, Shadows
from slotkeeper.api.group import GATEWAY_KIND
from slotkeeper.api.label_selector import LabelSelector
from slotkeeper.api.model import MODEL_NAME, ModelName
from slotkeeper.api.placement import LABEL_KEY, Name, NodeSelector, Tolerations
from slotkeeper.api.pull_secrets import PullSecrets
from slotkeeper.api.resource import SERVICE_NAME, Resource, parse_spec, resource_fields
from slotkeeper.api.resources import ByteSize, Resources, within
from slotkeeper.api.validation import ApiModel, Rule, matches

NAME_RULES = (
    SERVICE_NAME,
    Rule(
        "!self.endsWith('-replicas') && !self.endsWith('-workers')",
        "must not end with '-replicas' or '-workers': Services of a LlamaServer may have that name",
        lambda name: not name.endswith(("-replicas", "-workers")),
    ),
    Rule(
        "!self.endsWith('-batches')",
        "must not end with '-batches': the Service of another gateway's batches may have that name",
        lambda name: not name.endswith("-batches"),
    ),
)
"""Rules of `metadata.name`."""

_INT32 = {"format": "int32"}

Seconds = Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)]

ServiceType = Annotated[
    Literal["ClusterIP", "NodePort", "LoadBalancer"], Field(json_schema_extra={"maxLength": 12})
]

Origin = Annotated[
    str,
    Field(max_length=255),
    matches(
        r"[*]|https?://[-.:\[\]a-zA-Z0-9]+",
        "must be *, or a scheme and a host without a path, such as https://chat.example.com",
    ),
]


class GatewayTls(ApiModel):
    """TLS between clients and the gateway."""

    secret_name: Name
    """Name of a Secret of type kubernetes.io/tls in the gateway's namespace, with the entries
    tls.crt and tls.key, as cert-manager writes it. Changes take effect within about a minute,
    without a restart. No gateway pod starts without the Secret. Example: gateway-tls"""


class Cors(ApiModel):
    """Cross-origin requests of browsers."""

    allowed_origins: Annotated[
        list[Origin],
        Field(max_length=32),
        Rule(
            "self.all(one, self.exists_one(other, other == one)) && "
            "(!('*' in self) || size(self) == 1)",
            "must not contain an origin twice, and nothing else beside *",
            lambda origins: (
                len(set(origins)) == len(origins) and ("*" not in origins or len(origins) == 1)
            ),
        ),
    ] = Field(default=["*"])
    """Origins whose pages may use the gateway, up to 32. "*": all. An empty list: none.
    Default: ["*"]. Example: [https://chat.example.com]"""


class GatewayTimeouts(ApiModel):
    """Timeouts of the requests that the gateway sends to servers."""

    connect_seconds: Seconds = 5
    """Maximum time in seconds for connecting to a server, 1 to 86400; then status 502.
    Default: 5. Example: 2"""

    first_byte_seconds: Seconds = 630
    """Maximum time in seconds from a request to the first byte of its response, 1 to 86400; then
    status 504. It includes the time in which a server at zero starts: keep it above the sum of the
    balancer's coldStartTimeoutSeconds and queueTimeoutSeconds. Default: 630. Example: 1860"""

    idle_seconds: Seconds = 300
    """Maximum pause in seconds within a response, 1 to 86400; then the connection is closed.
    Default: 300. Example: 60"""


class GatewayService(ApiModel):
    """The Service for clients."""

    type: ServiceType = "ClusterIP"
    """Type of the Service. LoadBalancer and NodePort make the gateway reachable from outside of
    the cluster: set apiKeys and tls. Default: ClusterIP. Example: LoadBalancer"""

    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]],
        Field(max_length=32),
        Rule(
            f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
            "must have annotation keys, such as example.com/scheme",
            lambda entries: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in entries),
        ),
    ] = Field(default_factory=dict)
    """Annotations of the Service, up to 32 of up to 4096 characters each, for controllers of load
    balancers and DNS. Default: none.
    Example: {external-dns.alpha.kubernetes.io/hostname: llm.example.com}"""


class GatewayPlacement(ApiModel):
    """Scheduling of gateway pods to nodes."""

    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the node of a gateway pod must have, up to 32. Default: none.
    Example: {example.com/pool: services}"""

    tolerations: Tolerations = Field(default_factory=list)
    """Taints of nodes that gateway pods tolerate, up to 32. Default: none.
    Example: [{key: example.com/services, operator: Exists, effect: NoSchedule}]"""

    priority_class_name: Name | None = None
    """Name of the PriorityClass of gateway pods. Default: the cluster's default. Example: services
    """


class Budget(ApiModel):
    """What the loaded models of the selected servers may use together."""

    rules: ClassVar = (
        Rule(
            "has(self.gpus) || has(self.memory) || has(self.maxLoadedModels)",
            "must have gpus, memory or maxLoadedModels",
            lambda budget: (
                (budget.gpus, budget.memory, budget.max_loaded_models) != (None, None, None)
            ),
        ),
    )

    gpus: Annotated[int, Field(ge=1, le=100_000, json_schema_extra=_INT32)] | None = None
    """GPUs of all replicas of the selected servers, 1 to 100000. Default: no limit. Example: 4"""

    memory: Annotated[ByteSize, within("1Mi", "1Pi")] | None = None
    """Memory that all replicas of the selected servers request, a quantity from 1Mi to 1Pi: the
    memory of resources.requests, or else of resources.limits. Default: no limit. Example: 64Gi"""

    max_loaded_models: Annotated[int, Field(ge=1, le=1000, json_schema_extra=_INT32)] | None = None
    """Number of selected servers that have a replica, 1 to 1000. Default: no limit. Example: 1"""

    minimum_residency_seconds: Annotated[int, Field(ge=0, le=86_400, json_schema_extra=_INT32)] = 10
    """Minimum time in seconds for which a model stays loaded after it became ready, 0 to 86400,
    so that two models do not displace each other all the time. Default: 10. Example: 60"""

    maximum_wait_seconds: Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)] = 180
    """Time in seconds after which a model that waits for room gets that of a model in use, 1 to
    86400: the latter completes its running requests first. Default: 180. Example: 600"""


UsageLog = Annotated[Literal["None", "Stdout"], Field(json_schema_extra={"maxLength": 6})]


class LlamaGatewaySpec(ApiModel):
    """Desired state: which servers the gateway unites, under which names, for which clients."""

    rules: ClassVar = (
        Rule(
            "!has(self.resources) || !has(self.resources.limits) || "
            "!('memory' in self.resources.limits) || "
            "quantity(string(self.resources.limits['memory'])).asApproximateFloat() >= "
            f"{float(gateway_memory.min_limit(0))} + "
            f"{gateway_memory.MIN_BODIES * balancer_memory.OVERHEAD} * "
            "quantity(string(self.maxBodyBytes)).asApproximateFloat()",
            "resources.limits.memory must be at least 192Mi plus 2.5 times maxBodyBytes "
            "(default 32Mi): 272Mi by default. Else large requests would get the gateway "
            "OOM-killed",
            lambda spec: spec.fits_memory_limit(),
        ),
    )

    server_selector: LabelSelector = LabelSelector()
    """Selects the LlamaServers in the gateway's namespace by their labels. Each of them is one
    model, whose name is the server's model.alias, or else its name. If two servers have the same,
    the older one is used. Default: all. Example: {matchLabels: {team: search}}"""

    aliases: Annotated[
        dict[str, ModelName],
        Field(max_length=64),
        Rule(
            f"self.all(alias, size(alias) <= 128 && alias.matches(r'^(?:{MODEL_NAME})$'))",
            "must have names of up to 128 letters, digits, '-', '.', '_', ':', '/', '@' and '+', "
            "which start with a letter or digit",
            lambda aliases: all(
                len(alias) <= 128 and re.fullmatch(MODEL_NAME, alias, re.ASCII) for alias in aliases
            ),
        ),
        Rule(
            "self.all(alias, !(self[alias] in self))",
            "must refer to models, not to other aliases",
            lambda aliases: not any(model in aliases for model in aliases.values()),
        ),
    ] = Field(default_factory=dict)
    """Further names of models, up to 64: alias and model. An alias comes before a model of the same
    name. Default: none. Example: {gpt-4o: qwen}"""

    default_model: ModelName | None = None
    """Model, or alias, for requests without a model. Default: such requests are rejected with
    status 400. Example: qwen"""

    external_backends: ExternalBackends = Field(default_factory=list[ExternalBackend])
    """Other OpenAI-compatible servers, such as vLLM, Ollama or a provider, whose models are listed
    and routed like those of LlamaServers; up to 32. Default: none. Example: [{name: openai, url:
    https://api.example.com/v1, secretRef: {name: openai, key: api-key}, models: [{name: gpt-4o}]}]
    """

    fallbacks: Fallbacks = Field(default_factory=list[Fallback])
    """Models that serve requests where another one is full, fails or is not ready, up to 64.
    Default: none. Example: [{model: qwen, to: [gpt-4o], when: [Full, Failed]}]"""

    routes: Routes = Field(default_factory=list[Route])
    """Names for several models, which share the requests by weights, up to 64. Default: none.
    Example: [{name: chat, targets: [{model: qwen, weight: 90}, {model: qwen-next, weight: 10}]}]"""

    shadow: Shadows = Field(default_factory=list[Shadow])
    """Copies of requests for another model, to compare the two in metrics, up to 16. Default: none.
    Example: [{model: qwen, to: qwen-next, percent: 10}]"""

    tls: GatewayTls | None = None
    """Set for TLS between clients and the gateway: the Service then has port 443 instead of 80.
    Default: no TLS. Example: {secretName: gateway-tls}"""

    api_keys: GatewayApiKeys | None = None
    """API keys that clients must send. Default: no API key is required.
    Example: {secretRef: {name: gateway-keys}}"""

    cors: Cors = Cors()
    """Cross-origin requests of browsers. Default: from all origins.
    Example: {allowedOrigins: [https://chat.example.com]}"""

    timeouts: GatewayTimeouts = GatewayTimeouts()
    """Timeouts of the requests that the gateway sends to servers.
    Default: {connectSeconds: 5, firstByteSeconds: 630, idleSeconds: 300}.
    Example: {firstByteSeconds: 1860}"""

    max_body_bytes: Size = "32Mi"
    """Maximum size of the body of one request, a quantity from 1Mi to 64Gi. Larger requests
    are rejected with status 413. The balancer's maxBodyBytes applies too. Default: 32Mi.
    Example: 64Mi"""

    usage_log: UsageLog = "None"
    """Stdout: gateway pods write a line of JSON to their standard output for each request that they
    forwarded: API key, model, tokens, times and outcome, for billing. Neither prompts nor secrets.
    Default: None. Example: Stdout"""

    budget: Budget | None = None
    """Set to limit what the loaded models use together. If a model at zero is requested and there
    is no room for it, the least valuable idle one is scaled to zero first: only a server with
    autoscaling and minReplicas 0. Default: no limit. Example: {gpus: 4}"""

    batches: GatewayBatches | None = None
    """Set for OpenAI's files and batches: requests of a file, which are sent when slots are free.
    Default: none. Example: {storage: {size: 20Gi}}"""

    replicas: Annotated[int, Field(ge=1, le=20, json_schema_extra=_INT32)] = 2
    """Number of gateway pods, 1 to 20. All of them serve requests. Default: 2. Example: 3"""

    service: GatewayService = GatewayService()
    """The Service for clients, which has the gateway's name. Default: {type: ClusterIP}.
    Example: {type: LoadBalancer}"""

    resources: Resources | None = None
    """CPU and memory of one gateway pod, as the resources of a container. If set, they are used
    unchanged, and a memory limit bounds the requests in memory. It must be at least 192Mi plus 2.5
    times maxBodyBytes. Default: requests of cpu 50m and memory 96Mi, and a memory limit with room
    for four times maxBodyBytes, which is 352Mi by default.
    Example: {requests: {cpu: 1, memory: 256Mi}, limits: {memory: 1Gi}}"""

    placement: GatewayPlacement = GatewayPlacement()
    """Scheduling of gateway pods to nodes. They are spread over nodes if possible. Default: any
    node without a taint. Example: {nodeSelector: {example.com/pool: services}}"""

    image_pull_secrets: PullSecrets = Field(default_factory=list)
    """Secrets for pulling the image of gateway pods, in the gateway's namespace, up to 16.
    Default: none. Example: [{name: registry}]"""

    @property
    def max_body(self) -> float:
        """The maximum size of the body of one request in bytes."""
        return float(quantity.parse(self.max_body_bytes))

    @property
    def max_buffered(self) -> int:
        """The maximum bytes of requests that a pod keeps in memory."""
        limit = None if self.resources is None else self.memory_limit
        return gateway_memory.max_buffered(self.max_body, limit)

    @property
    def memory_limit(self) -> int | None:
        """The memory limit of the container in bytes; None if `resources` sets none."""
        if self.resources is None:
            return gateway_memory.default_limit(self.max_body)
        limit = self.resources.limits.get("memory")
        return None if limit is None else int(quantity.parse(limit))

    def fits_memory_limit(self) -> bool:
        """Whether the largest bodies fit into the memory limit; True without a limit."""
        needed = gateway_memory.min_limit(self.max_body)
        return self.memory_limit is None or self.memory_limit >= needed


@dataclass(frozen=True)
class LlamaGateway(Resource):
    """A LlamaGateway as read from the cluster."""

    spec: LlamaGatewaySpec
    kind: ClassVar = GATEWAY_KIND
    noun: ClassVar = "gateway"

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "LlamaGateway":
        """Parse a LlamaGateway from its JSON tree.

        Raises InvalidSpec if the spec or the name breaks a rule.
        """
        return cls(spec=parse_spec(LlamaGatewaySpec, NAME_RULES, raw), **resource_fields(raw))
