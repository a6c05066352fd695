"""The balancer, as a user sets it in `spec.balancer`."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from slotkeeper.api import paths, quantity
from slotkeeper.api.resources import Quantity, Resources
from slotkeeper.api.validation import ApiModel, Rule, matches

_INT32 = {"format": "int32"}

HEADROOM = "128Mi"
"""What a balancer needs beside the bodies of the requests that wait."""

Seconds = Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)]
Priority = Annotated[int, Field(ge=0, le=1000, json_schema_extra=_INT32)]

Size = Annotated[
    Quantity,
    Rule(
        "quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && "
        "quantity(string(self)).compareTo(quantity('64Gi')) <= 0",
        "must be from 1Mi to 64Gi",
        lambda size: 1024**2 <= quantity.parse(size) <= 64 * 1024**3,
    ),
]


def _is_proxied(path: str) -> str:
    if path not in paths.PROXIED:
        raise ValueError(f"must be one of {', '.join(paths.PROXIED)}")
    return path


# Not a Literal, which cannot be made of a table.
AllowedPath = Annotated[
    str,
    AfterValidator(_is_proxied),
    Field(json_schema_extra={"enum": list(paths.PROXIED), "maxLength": 64}),
]


class PrefixAffinity(ApiModel):
    """Sends prompts to replicas whose cache knows how they begin, so that less is computed."""

    enabled: bool = True
    """Whether prompts are looked at. false: strictly first in, first out. Default: true.
    Example: false"""

    max_wait_seconds: Annotated[int, Field(ge=0, le=300, json_schema_extra=_INT32)] = 5
    """Seconds that a request waits for a replica that knows its prompt while another may have a
    free slot, 0 to 300. Longer than computing a long prompt anew takes is of no use. Default: 5.
    Example: 2"""

    cached_prompts: Annotated[int, Field(ge=0, le=100_000, json_schema_extra=_INT32)] | None = None
    """Prompts that the cache of one replica holds beside those in its slots, 0 to 100000. Too many
    cost waits for prompts that the cache has lost, too few forget prompts that it has. Default:
    estimated from the replica's prompt cache and contextPerSlot, for an 8B model. Example: 16"""


class ApiKeys(ApiModel):
    """The API keys that requests need."""

    secret_name: Annotated[
        str,
        Field(max_length=253),
        matches(
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            "must be a Secret's name: lower-case letters, digits, '-' and '.', such as chat-keys",
        ),
    ]
    """Secret in the server's namespace: each entry is a key, its name who the key belongs to. A
    changed Secret counts within about a minute, without a restart. Without the Secret no balancer
    starts. Example: chat-keys"""

    max_priorities: Annotated[
        dict[str, Priority],
        Field(max_length=64),
        Rule(
            "self.all(name, name.matches(r'^[-._a-zA-Z0-9]{1,253}$'))",
            "must name entries of the Secret: letters, digits, '-', '_' and '.'",
            lambda priorities: all(map(_is_entry, priorities)),
        ),
    ] = Field(default_factory=dict)
    """maxPriority by key, for the keys that have one of their own, 0 to 1000. The other keys have
    maxPriority. Default: none has its own. Example: {alice: 10, batch: 0}"""


class Balancer(ApiModel):
    """How requests wait, who may send them, and what hands them out."""

    rules: ClassVar = (
        Rule(
            "quantity(string(self.maxBodyBytes))"
            ".compareTo(quantity(string(self.maxQueuedBytes))) <= 0",
            "maxBodyBytes (default 32Mi) must not be above maxQueuedBytes: so large a request "
            "could never wait",
            lambda balancer: (
                quantity.parse(balancer.max_body_bytes) <= quantity.parse(balancer.max_queued_bytes)
            ),
        ),
        Rule(
            "!has(self.resources) || !has(self.resources.limits) || "
            "!('memory' in self.resources.limits) || "
            "quantity(string(self.resources.limits['memory'])).compareTo("
            f"quantity(string(self.maxQueuedBytes)).add(quantity('{HEADROOM}'))) >= 0",
            f"resources.limits.memory must be at least maxQueuedBytes (default 128Mi) and "
            f"{HEADROOM}: a full queue would have the balancer killed",
            lambda balancer: balancer.has_room(),
        ),
    )

    replicas: Annotated[int, Field(ge=1, le=5, json_schema_extra=_INT32)] = 2
    """Balancers, 1 to 5. One hands out the slots, by a Lease; the others stand by and pass
    requests on to it. With 1, a balancer that is killed is missed for the seconds that it takes to
    restart. Default: 2. Example: 3"""

    max_queued_requests: Annotated[int, Field(ge=0, le=100_000, json_schema_extra=_INT32)] = 1000
    """Requests that wait for a slot, 0 to 100000. One more is answered with 429, which clients
    understand sooner than a long wait. 0: nobody waits. Default: 1000. Example: 200"""

    max_queued_bytes: Size = "128Mi"
    """Bytes of the bodies of all requests that wait, a quantity from 1Mi to 64Gi, rounded down to
    MiB. It bounds the balancer's memory: one request more is answered with 429. Default: 128Mi.
    Example: 512Mi"""

    max_body_bytes: Size = "32Mi"
    """Bytes of one request's body, a quantity from 1Mi up to maxQueuedBytes, rounded down to MiB.
    A larger one is answered with 413. Pictures need some. Default: 32Mi. Example: 64Mi"""

    queue_timeout_seconds: Seconds = 60
    """Seconds that a request waits for a slot, 1 to 86400; then it is answered with 503. Best below
    the clients' own time limit. Default: 60. Example: 300"""

    cold_start_timeout_seconds: Seconds = 570
    """Seconds that a request waits while there is no replica at all, 1 to 86400. Long, since
    loading a model takes minutes, and best below the clients' own time limit, or they never hear
    why: OpenAI's give up after 600. Where no replica can start, as without its model, 10 seconds
    are enough to say so. Default: 570. Example: 1800"""

    prefix_affinity: PrefixAffinity = PrefixAffinity()
    """Sends prompts to replicas whose cache knows how they begin. Default: enabled.
    Example: {maxWaitSeconds: 2}"""

    max_priority: Priority = 0
    """Highest priority that a request may ask for in the header X-Priority, 0 to 1000; -N is the
    lowest. 0: the header is ignored, since whoever may ask asks for the highest. Default: 0.
    Example: 10"""

    heartbeat_seconds: Annotated[int, Field(ge=1, le=300, json_schema_extra=_INT32)] | None = None
    """Seconds between signs of life on a stream that waits for its slot, 1 to 300, so that proxies
    do not take it for dead. Its status is then 200 before there is an answer. Default: none.
    Example: 15"""

    allowed_paths: (
        Annotated[
            list[AllowedPath],
            Field(min_length=1, max_length=32),
            Rule(
                "self.all(path, self.exists_one(other, other == path))",
                "must not name a path twice",
                lambda routes: len(set(routes)) == len(routes),
            ),
        ]
        | None
    ) = None
    """Paths of llama-server that are passed on, at least one; the others are answered with 404.
    /health, /slots, /props and /v1/models are always answered. Default: all.
    Example: [/v1/chat/completions, /v1/embeddings]"""

    api_keys: ApiKeys | None = None
    """API keys that requests need. Default: none is needed. Example: {secretName: chat-keys}"""

    resources: Resources | None = None
    """CPU and memory of one balancer, as a container's resources. Where it is set, nothing is
    added to it. A memory limit must be at least maxQueuedBytes and 128Mi. Default: requests of
    cpu 50m and memory 96Mi, and a memory limit of 256Mi and twice maxQueuedBytes, 512Mi unless
    that is set. Example: {requests: {cpu: 1, memory: 256Mi}, limits: {memory: 1Gi}}"""

    def has_room(self) -> bool:
        """Whether a full queue fits into the memory limit, if there is one."""
        limit = self.resources.limits.get("memory") if self.resources else None
        needed = quantity.parse(self.max_queued_bytes) + quantity.parse(HEADROOM)
        return limit is None or quantity.parse(limit) >= needed


def _is_entry(name: str) -> bool:
    return 0 < len(name) <= 253 and all(
        letter.isascii() and (letter.isalnum() or letter in "-._") for letter in name
    )
