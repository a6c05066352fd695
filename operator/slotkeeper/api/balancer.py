"""The balancer: `spec.balancer`."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from slotkeeper.api import balancer_memory, paths, quantity
from slotkeeper.api.connections import Connections
from slotkeeper.api.placement import BalancerPlacement
from slotkeeper.api.resources import ByteSize, Resources, within
from slotkeeper.api.validation import ApiModel, Rule, matches

_INT32 = {"format": "int32"}

Seconds = Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)]
Running = Annotated[int, Field(ge=1, le=10_000, json_schema_extra=_INT32)]
Priority = Annotated[int, Field(ge=0, le=1000, json_schema_extra=_INT32)]

Size = Annotated[ByteSize, within("1Mi", "64Gi")]

SecretName = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "must be the name of a Secret: lower-case letters, digits, '-' and '.', such as chat-keys",
    ),
]

KEY_NAMES = Rule(
    "self.all(name, name.matches(r'^[-._a-zA-Z0-9]{1,253}$'))",
    "must have names of entries of the Secret: letters, digits, '-', '_' and '.'",
    lambda by_key: all(re.fullmatch("[-._a-zA-Z0-9]{1,253}", name, re.ASCII) for name in by_key),
)
"""Rule of a map by API key."""


def _is_proxied(path: str) -> str:
    if path not in paths.PROXIED:
        raise ValueError(f"must be one of {', '.join(paths.PROXIED)}")
    return path


# Not a Literal: its members cannot come from a table.
AllowedPath = Annotated[
    str,
    AfterValidator(_is_proxied),
    Field(json_schema_extra={"enum": list(paths.PROXIED), "maxLength": 64}),
]


class PrefixAffinity(ApiModel):
    """Prefix-cache affinity: sends a prompt to a replica that has its beginning in the cache, so
    that less is computed."""

    enabled: bool = True
    """Whether prompts are compared with those in the replicas' caches. false: strictly first in,
    first out. Default: true. Example: false"""

    max_wait_seconds: Annotated[int, Field(ge=0, le=300, json_schema_extra=_INT32)] = 5
    """Maximum time in seconds that a request is queued for the replica with a prefix cache hit
    while another replica may have a free slot, 0 to 300. A value above the time in which a
    replica computes a long prompt has no benefit. Default: 5. Example: 2"""

    cached_prompts: Annotated[int, Field(ge=0, le=100_000, json_schema_extra=_INT32)] | None = None
    """Number of prompts in the cache of one replica, without those in its slots, 0 to 100000. If it
    is too high, requests are queued for prompts that the cache has evicted; if it is too low, cache
    hits are missed. Default: estimated from the replica's prompt cache and contextPerSlot, for an
    8B model. Example: 16"""


class ApiKeys(ApiModel):
    """API keys that clients must send."""

    secret_name: SecretName
    """Name of a Secret in the server's namespace. Each entry is an API key, named after its owner.
    Changes of the Secret take effect within about a minute, without a restart. No balancer starts
    without the Secret, and balancers that do not have it yet accept no requests. Example:
    chat-keys"""

    max_priorities: Annotated[
        dict[str, Priority],
        Field(max_length=64),
        KEY_NAMES,
    ] = Field(default_factory=dict)
    """maxPriority of single keys, by the name of the entry, 0 to 1000, up to 64 keys. maxPriority
    applies to all others. Default: none. Example: {alice: 10, batch: 0}"""

    max_running_requests: Running | None = None
    """Maximum number of slots that the running requests of each key hold, 1 to 10000, so that one
    key cannot hold all slots. Most requests take one, those with n or several prompts as many as
    llama-server uses for them. Further ones are queued, and do not delay those of other keys. Slots
    that no other key uses stay free. Default: no limit. Example: 6"""

    max_running_requests_by_key: Annotated[
        dict[str, Running],
        Field(max_length=64),
        KEY_NAMES,
    ] = Field(default_factory=dict)
    """maxRunningRequests of single keys, by the name of the entry, 1 to 10000, up to 64 keys.
    Default: none. Example: {batch: 2}"""


class Balancer(ApiModel):
    """Queue, access and deployment of the balancers, which dispatch requests to slots."""

    rules: ClassVar = (
        Rule(
            "quantity(string(self.maxBodyBytes))"
            ".compareTo(quantity(string(self.maxQueuedBytes))) <= 0",
            "maxBodyBytes (default 32Mi) must be at most maxQueuedBytes: a larger request could "
            "never be queued",
            lambda balancer: (
                quantity.parse(balancer.max_body_bytes) <= quantity.parse(balancer.max_queued_bytes)
            ),
        ),
        Rule(
            "!has(self.resources) || !has(self.resources.limits) || "
            "!('memory' in self.resources.limits) || "
            "quantity(string(self.resources.limits['memory'])).asApproximateFloat() >= "
            f"{float(balancer_memory.PROCESS)} + {balancer_memory.OVERHEAD} * "
            "quantity(string(self.maxQueuedBytes)).asApproximateFloat() + "
            f"{float(balancer_memory.CONNECTION)} * double(has(self.connections.maxTotal) "
            "? self.connections.maxTotal : self.maxQueuedRequests > "
            f"{balancer_memory.MIN_CONNECTIONS // 4} ? 4 * self.maxQueuedRequests : "
            f"{balancer_memory.MIN_CONNECTIONS})",
            "resources.limits.memory must be at least 128Mi, plus 1.25 times maxQueuedBytes "
            "(default 128Mi), plus 16Ki for each of connections.maxTotal (default 4096): 352Mi by "
            "default. Else a full queue would get the balancer OOM-killed",
            lambda balancer: balancer.fits_memory_limit(),
        ),
    )

    replicas: Annotated[int, Field(ge=1, le=5, json_schema_extra=_INT32)] = 2
    """Number of balancers, 1 to 5. One is elected leader by a Lease and dispatches requests; the
    standbys forward requests to it. With 1, requests fail for the seconds that a killed balancer
    takes to restart. Default: 2. Example: 3"""

    max_queued_requests: Annotated[int, Field(ge=0, le=100_000, json_schema_extra=_INT32)] = 1000
    """Maximum number of queued requests, 0 to 100000. Further requests are rejected
    with status 429, which clients handle better than a long wait. 0 disables the queue.
    Default: 1000. Example: 200"""

    max_queued_bytes: Size = "128Mi"
    """Maximum size of the bodies of all queued requests, a quantity from 1Mi to 64Gi, rounded down
    to MiB. Bounds the balancer's memory. Further requests are rejected with status 429.
    Default: 128Mi. Example: 512Mi"""

    max_body_bytes: Size = "32Mi"
    """Maximum size of the body of one request, a quantity from 1Mi to maxQueuedBytes, rounded down
    to MiB. Larger requests are rejected with status 413. Images need large bodies. Default: 32Mi.
    Example: 64Mi"""

    queue_timeout_seconds: Seconds = 60
    """Maximum time in seconds that a request is queued, 1 to 86400. It is then rejected with
    status 503. Keep it below the timeout of the clients. Default: 60. Example: 300"""

    cold_start_timeout_seconds: Seconds = 570
    """Maximum time in seconds that a request is queued while no replica is ready, 1 to 86400. Long,
    because loading a model takes minutes. Keep it below the timeout of the clients, or they never
    receive the reason: OpenAI's clients time out after 600 seconds. If no replica can start, for
    example because the model is not found, requests are rejected after 10 seconds. Default: 570.
    Example: 1800"""

    prefix_affinity: PrefixAffinity = PrefixAffinity()
    """Prefix-cache affinity: sends a prompt to a replica that has its beginning in the cache.
    Default: enabled. Example: {maxWaitSeconds: 2}"""

    max_priority: Priority = 0
    """Highest priority that a request may set in the header X-Priority, 0 to 1000. The lowest is
    its negative. With 0 the header is ignored, because every client that may set it sets the
    highest. Default: 0. Example: 10"""

    heartbeat_seconds: Annotated[int, Field(ge=1, le=300, json_schema_extra=_INT32)] | None = None
    """Seconds between SSE keep-alive comments on the response to a queued streaming request, 1 to
    300, so that proxies do not close it as idle. The response's status is then 200 before the
    outcome is known. Default: no keep-alive comments. Example: 15"""

    allowed_paths: (
        Annotated[
            list[AllowedPath],
            Field(min_length=1, max_length=32),
            Rule(
                "self.all(path, self.exists_one(other, other == path))",
                "must not contain a path twice",
                lambda allowed: len(set(allowed)) == len(allowed),
            ),
        ]
        | None
    ) = None
    """Paths of llama-server that are forwarded, 1 to 32. Others are rejected with status 404.
    /health, /slots, /props and /v1/models are always served. Default: all.
    Example: [/v1/chat/completions, /v1/embeddings]"""

    api_keys: ApiKeys | None = None
    """API keys that clients must send. Default: no API key is required.
    Example: {secretName: chat-keys}"""

    connections: Connections = Connections()
    """Limits and timeouts of the connections from clients.
    Default: {idleTimeoutSeconds: 75}. Example: {idleTimeoutSeconds: 620}"""

    resources: Resources | None = None
    """CPU and memory of one balancer, as the resources of a container. If set, they are used
    unchanged, and a memory limit bounds the requests in memory. It must be at least 128Mi, plus
    1.25 times maxQueuedBytes, plus 16Ki for each connection. Default: requests of
    cpu 100m and memory 128Mi, limits of cpu 1 and of memory with room for twice maxQueuedBytes,
    which is 512Mi by default.
    Example: {requests: {cpu: 1, memory: 256Mi}, limits: {memory: 1Gi}}"""

    @property
    def max_connections(self) -> int:
        """Maximum number of open connections."""
        return self.connections.max_total or balancer_memory.max_connections(
            self.max_queued_requests
        )

    @property
    def memory_limit(self) -> int | None:
        """The memory limit of the container in bytes; None if `resources` sets none."""
        if self.resources is None:
            queued = quantity.parse(self.max_queued_bytes)
            return balancer_memory.limit(2 * float(queued), self.max_connections)
        limit = self.resources.limits.get("memory")
        return None if limit is None else int(quantity.parse(limit))

    @property
    def max_buffered(self) -> int:
        """Maximum bytes of requests in memory, those queued and those in transit."""
        if self.memory_limit is None:
            return 2 * int(quantity.parse(self.max_queued_bytes))
        return balancer_memory.buffered(self.memory_limit, self.max_connections)

    placement: BalancerPlacement = BalancerPlacement()
    """Scheduling of balancers to nodes. They are spread over nodes if possible. Default: any node
    without a taint. Example: {nodeSelector: {example.com/pool: services}}"""

    def fits_memory_limit(self) -> bool:
        """Whether a full queue fits into the memory limit; True without a limit."""
        queued = float(quantity.parse(self.max_queued_bytes))
        limit = self.memory_limit
        return limit is None or limit >= balancer_memory.limit(queued, self.max_connections)
