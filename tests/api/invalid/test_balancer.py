"""Values of spec.balancer that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"replicas": 0}, "replicas", "greater than or equal to 1"),
    ({"replicas": 6}, "replicas", "less than or equal to 5"),
    ({"maxQueuedRequests": -1}, "maxQueuedRequests", "greater than or equal to 0"),
    ({"maxQueuedRequests": 100001}, "maxQueuedRequests", "less than or equal to 100000"),
    ({"maxQueuedBytes": "1023Ki"}, "maxQueuedBytes", "must be from 1Mi to 64Gi"),
    ({"maxQueuedBytes": "65Gi"}, "maxQueuedBytes", "must be from 1Mi to 64Gi"),
    ({"maxQueuedBytes": "128 MB"}, "maxQueuedBytes", "must be a quantity such as"),
    ({"maxBodyBytes": 1000}, "maxBodyBytes", "must be from 1Mi to 64Gi"),
    ({"maxBodyBytes": "129Mi"}, "", "maxBodyBytes (default 32Mi) must be at most maxQueuedBytes"),
    ({"maxQueuedBytes": "16Mi"}, "", "a larger request could never be queued"),
    ({"queueTimeoutSeconds": 0}, "queueTimeoutSeconds", "greater than or equal to 1"),
    ({"coldStartTimeoutSeconds": 86401}, "coldStartTimeoutSeconds", "less than or equal to 86400"),
    ({"prefixAffinity": {"enabled": "yes"}}, "prefixAffinity.enabled", "must be of type boolean"),
    (
        {"prefixAffinity": {"maxWaitSeconds": 301}},
        "prefixAffinity.maxWaitSeconds",
        "less than or equal to 300",
    ),
    (
        {"prefixAffinity": {"cachedPrompts": -1}},
        "prefixAffinity.cachedPrompts",
        "greater than or equal to 0",
    ),
    ({"maxPriority": 1001}, "maxPriority", "less than or equal to 1000"),
    ({"heartbeatSeconds": 0}, "heartbeatSeconds", "greater than or equal to 1"),
    ({"heartbeatSeconds": 301}, "heartbeatSeconds", "less than or equal to 300"),
    ({"allowedPaths": []}, "allowedPaths", "should have at least 1 items"),
    (
        {"allowedPaths": ["/lora-adapters"]},
        "allowedPaths[0]",
        'Unsupported value: "/lora-adapters"',
    ),
    ({"allowedPaths": ["/infill", "/infill"]}, "allowedPaths", "must not contain a path twice"),
    ({"apiKeys": {}}, "apiKeys.secretName", "Required value"),
    (
        {"apiKeys": {"secretName": "Chat_Keys"}},
        "apiKeys.secretName",
        "must be the name of a Secret",
    ),
    (
        {"apiKeys": {"secretName": "a", "maxPriorities": {"a=b": 1}}},
        "apiKeys.maxPriorities",
        "must have names of entries of the Secret",
    ),
    (
        {"apiKeys": {"secretName": "a", "maxPriorities": {"a": 1001}}},
        "apiKeys.maxPriorities",
        "less than or equal to 1000",
    ),
    (
        {"resources": {"limits": {"memory": "351Mi"}}},
        "",
        "resources.limits.memory must be at least 128Mi, plus 1.25 times maxQueuedBytes",
    ),
    (
        {
            "resources": {"limits": {"memory": "1Gi"}},
            "connections": {"maxTotal": 60_000},
        },
        "",
        "resources.limits.memory must be at least 128Mi",
    ),
    (
        {"resources": {"limits": {"memory": "400Mi"}}, "maxQueuedRequests": 2000},
        "",
        "resources.limits.memory must be at least 128Mi",
    ),
    (
        {"connections": {"maxTotal": 100, "maxPerAddress": 101}},
        "connections",
        "maxPerAddress must be at most maxTotal",
    ),
    (
        {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}},
        "resources",
        "requests.cpu must be at most limits.cpu",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_balancer_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    path = f"spec.balancer.{field}".rstrip(".")
    assert_rejected(api, {"balancer": spec}, path, message)
