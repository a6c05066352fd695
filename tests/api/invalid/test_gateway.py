"""Gateways that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from llamagateways import raw_gateway
from rejections import assert_gateway_rejected, is_accepted_by_the_operator, rejection

KEYS = {"secretRef": {"name": "keys"}}


def external(**fields: Any) -> dict[str, Any]:
    """A spec with a valid backend, apart from these fields."""
    valid = {"name": "up", "url": "https://up.example/v1", "models": [{"name": "gpt"}]}
    return {"externalBackends": [{**valid, **fields}]}


REF = {"name": "keys", "key": "token"}
URL = "must be the base URL of an OpenAI-compatible API with its path"

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"replicas": 0}, "spec.replicas", "should be greater than or equal to 1"),
    ({"replicas": 21}, "spec.replicas", "should be less than or equal to 20"),
    ({"replicas": "2"}, "spec.replicas", "must be of type integer"),
    ({"aliases": {"a": "b", "b": "c"}}, "spec.aliases", "must refer to models, not to other"),
    ({"aliases": {"a": "a"}}, "spec.aliases", "must refer to models, not to other aliases"),
    ({"aliases": {"": "a"}}, "spec.aliases", "must have names of up to 128 letters"),
    ({"aliases": {"a": "b c"}}, "spec.aliases[a]", "must start with a letter or digit"),
    ({"defaultModel": ""}, "spec.defaultModel", "must start with a letter or digit"),
    ({"tls": {}}, "spec.tls.secretName", "Required value"),
    ({"batches": {}}, "spec.batches.storage", "Required value"),
    ({"batches": {"storage": {}}}, "spec.batches.storage", "must set either claimName or size"),
    (
        {"batches": {"storage": {"claimName": "a", "size": "1Gi"}}},
        "spec.batches.storage",
        "must set either claimName or size",
    ),
    (
        {"batches": {"storage": {"claimName": "a", "storageClassName": "fast"}}},
        "spec.batches.storage",
        "storageClassName needs size",
    ),
    ({"batches": {"storage": {"size": "1Mi"}}}, "spec.batches.storage.size", "must be from 100Mi"),
    (
        {"batches": {"storage": {"size": "1Gi"}, "concurrency": 0}},
        "spec.batches.concurrency",
        "should be greater than or equal to 1",
    ),
    ({"tls": {"secretName": "A"}}, "spec.tls.secretName", "must be the name of an object"),
    ({"apiKeys": {}}, "spec.apiKeys.secretRef", "Required value"),
    (
        {"apiKeys": {"secretRef": {"name": "_"}}},
        "spec.apiKeys.secretRef.name",
        "must be the name of a Secret",
    ),
    (
        {"apiKeys": {**KEYS, "models": {"a b": ["qwen"]}}},
        "spec.apiKeys.models",
        "must have names of entries of the Secret",
    ),
    (
        {"apiKeys": {**KEYS, "models": {"alice": ["a b"]}}},
        "spec.apiKeys.models[alice][0]",
        "must start with a letter or digit",
    ),
    (
        {"apiKeys": {**KEYS, "maxPriorities": {"alice": 1001}}},
        "spec.apiKeys.maxPriorities.alice",
        "should be less than or equal to 1000",
    ),
    (
        {"apiKeys": {**KEYS, "limits": {"tokensPerMinute": 0}}},
        "spec.apiKeys.limits.tokensPerMinute",
        "should be greater than or equal to 1",
    ),
    (
        {"apiKeys": {**KEYS, "limitsByKey": {"=": {}}}},
        "spec.apiKeys.limitsByKey",
        "must have names of entries of the Secret",
    ),
    (
        {"cors": {"allowedOrigins": ["example.com"]}},
        "spec.cors.allowedOrigins",
        "must be *, or a scheme and a host without a path",
    ),
    (
        {"cors": {"allowedOrigins": ["*", "https://a"]}},
        "spec.cors.allowedOrigins",
        "must not contain an origin twice, and nothing else beside *",
    ),
    *(
        (external(url=url), "spec.externalBackends[0].url", URL)
        for url in (
            "https://up.example",
            "ftp://up.example/v1",
            "https://user@up.example/v1",
            "https://up.example/v1?a=b",
            "https://up.example:65536/v1",
            "https://up.example/v1//x",
        )
    ),
    (external(name="a.b"), "spec.externalBackends[0].name", "must be a DNS label"),
    (
        {
            "externalBackends": [
                {**external()["externalBackends"][0], "name": f"up{number}"} for number in range(33)
            ]
        },
        "spec.externalBackends",
        "at most 32 items",
    ),
    (external(models=[]), "spec.externalBackends[0].models", "at least 1 items"),
    (
        external(models=[{"name": "a"}, {"name": "a"}]),
        "spec.externalBackends[0].models[1]",
        "Duplicate value",
    ),
    (
        {"externalBackends": external()["externalBackends"] * 2},
        "spec.externalBackends[1]",
        "Duplicate value",
    ),
    (
        external(url="http://up.example/v1", secretRef=REF),
        "spec.externalBackends[0]",
        "url must be https:// with secretRef",
    ),
    (
        external(url="http://up.team.svc/v1", caSecretRef=REF),
        "spec.externalBackends[0]",
        "url must be https:// with caSecretRef",
    ),
    (
        external(secretRef={**REF, "key": "hosts"}),
        "spec.externalBackends[0].secretRef.key",
        "must not be hosts",
    ),
    (
        external(models=[{"name": "a", "upstreamName": "a b"}]),
        "spec.externalBackends[0].models[0].upstreamName",
        "must be printable ASCII",
    ),
    (
        {"fallbacks": [{"model": "a", "to": ["b", "a"]}]},
        "spec.fallbacks[0]",
        "to must not contain the model itself",
    ),
    ({"fallbacks": [{"model": "a", "to": []}]}, "spec.fallbacks[0].to", "at least 1 items"),
    ({"fallbacks": [{"model": "a", "to": ["b", "b"]}]}, "spec.fallbacks[0].to", "Duplicate"),
    (
        {"fallbacks": [{"model": "a", "to": ["b"], "when": ["Slow"]}]},
        "spec.fallbacks[0].when[0]",
        "Unsupported value",
    ),
    ({"fallbacks": [{"model": "a", "to": ["b"]}] * 2}, "spec.fallbacks[1]", "Duplicate value"),
    (
        {"routes": [{"name": "a", "targets": [{"model": "b", "weight": 0}]}]},
        "spec.routes[0]",
        "targets must contain one with a weight above 0",
    ),
    (
        {"routes": [{"name": "a", "targets": [{"model": "b", "weight": 1}] * 2}]},
        "spec.routes[0].targets[1]",
        "Duplicate value",
    ),
    (
        {"routes": [{"name": "a", "targets": [{"model": "b", "weight": 1001}]}]},
        "spec.routes[0].targets[0].weight",
        "should be less than or equal to 1000",
    ),
    (
        {"shadow": [{"model": "a", "to": "a", "percent": 1}]},
        "spec.shadow[0]",
        "to must not be the model itself",
    ),
    (
        {"shadow": [{"model": "a", "to": "b", "percent": 0}]},
        "spec.shadow[0].percent",
        "should be greater than or equal to 1",
    ),
    (
        {"timeouts": {"connectSeconds": 0}},
        "spec.timeouts.connectSeconds",
        "should be greater than or equal to 1",
    ),
    ({"maxBodyBytes": "1Ki"}, "spec.maxBodyBytes", "must be from 1Mi to 64Gi"),
    ({"service": {"type": "ExternalName"}}, "spec.service.type", "Unsupported value"),
    (
        {"service": {"annotations": {"a b": "c"}}},
        "spec.service.annotations",
        "must have annotation keys",
    ),
    ({"budget": {}}, "spec.budget", "must have gpus, memory or maxLoadedModels"),
    ({"budget": {"gpus": 0}}, "spec.budget.gpus", "should be greater than or equal to 1"),
    ({"budget": {"memory": "2Pi"}}, "spec.budget.memory", "must be from 1Mi to 1Pi"),
    (
        {"resources": {"limits": {"memory": "271Mi"}}},
        "spec",
        "resources.limits.memory must be at least 192Mi plus 2.5 times maxBodyBytes",
    ),
    (
        {"serverSelector": {"matchLabels": {"a b": "c"}}},
        "spec.serverSelector.matchLabels",
        "must have label keys, such as team",
    ),
    (
        {"serverSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "spec.serverSelector.matchExpressions[0]",
        "values must be set if operator is In or NotIn",
    ),
    (
        {
            "serverSelector": {
                "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
            }
        },
        "spec.serverSelector.matchExpressions[0]",
        "values must be set if operator is In or NotIn, and must not be set otherwise",
    ),
    (
        {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]},
        "spec.imagePullSecrets",
        "must not contain a name twice",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_gateway_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_gateway_rejected(api, spec, field, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "must be 1 to 63 lower-case letters"),
        ("chat-replicas", "Services of a LlamaServer may have that name"),
        ("llm-batches", "the Service of another gateway's batches may have that name"),
    ],
)
def test_a_name_that_no_service_can_have_is_rejected_by_both(
    api: ApiServer, name: str, message: str
) -> None:
    error = rejection(api, raw_gateway(name))

    assert error is not None
    assert message in error
    assert not is_accepted_by_the_operator(raw_gateway(name))


@pytest.mark.parametrize("field", ["models", "alias", "selector"])
def test_an_unknown_field_is_rejected_by_name(api: ApiServer, field: str) -> None:
    unknown: dict[str, Any] = {field: 1}

    error = rejection(api, raw_gateway(**unknown))

    assert error is not None
    assert f'unknown field "spec.{field}"' in error
