"""API keys of a gateway: `spec.apiKeys`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.balancer import KEY_NAMES, Priority, Running, SecretName
from slotkeeper.api.model import ModelName
from slotkeeper.api.validation import ApiModel

MAX_KEYS = 64
"""Entries of a map by API key."""

Rate = Annotated[int, Field(ge=1, le=1_000_000_000, json_schema_extra={"format": "int32"})]


class SecretRef(ApiModel):
    """Reference to a Secret in the gateway's namespace."""

    name: SecretName
    """Name of the Secret. Example: gateway-keys"""


class KeyLimits(ApiModel):
    """Limits of one API key, in all gateway pods together."""

    requests_per_minute: Rate | None = None
    """Maximum number of requests in one minute, 1 to 1000000000. Further ones are rejected with
    status 429. Default: no limit. Example: 600"""

    tokens_per_minute: Rate | None = None
    """Maximum number of tokens, of prompts and responses together, in one minute, 1 to 1000000000.
    Further requests are rejected with status 429. The tokens of a request count when they are
    known, at its end. Default: no limit. Example: 100000"""

    max_running_requests: Running | None = None
    """Maximum number of requests in progress, 1 to 10000. Further ones are rejected with status
    429. Default: no limit. Example: 20"""


class GatewayApiKeys(ApiModel):
    """API keys that clients must send, and what each of them may use."""

    secret_ref: SecretRef
    """Secret in the gateway's namespace. Each entry is an API key, named after its owner. Changes
    take effect within about a minute, without a restart. No gateway pod starts without the Secret.
    Example: {name: gateway-keys}"""

    models: Annotated[
        dict[str, Annotated[list[ModelName], Field(max_length=64)]],
        Field(max_length=MAX_KEYS),
        KEY_NAMES,
    ] = Field(default_factory=dict)
    """Models that single keys may use, by the name of the entry: names of models or aliases, up to
    64 for each of up to 64 keys. Requests for other models are rejected with status 404, and they
    are not listed. All other keys may use all models. Default: none. Example: {alice: [qwen]}"""

    max_priorities: Annotated[dict[str, Priority], Field(max_length=MAX_KEYS), KEY_NAMES] = Field(
        default_factory=dict
    )
    """Highest priority that requests of single keys may set in the header X-Priority, by the name
    of the entry, 0 to 1000, up to 64 keys. For all other keys the header is ignored. The balancer's
    maxPriority applies too. Default: none. Example: {alice: 10}"""

    limits: KeyLimits = KeyLimits()
    """Limits of each key that has none in limitsByKey. Default: no limits.
    Example: {requestsPerMinute: 600}"""

    limits_by_key: Annotated[dict[str, KeyLimits], Field(max_length=MAX_KEYS), KEY_NAMES] = Field(
        default_factory=dict
    )
    """Limits of single keys, by the name of the entry, up to 64 keys. They replace limits.
    Default: none. Example: {batch: {maxRunningRequests: 2}}"""
