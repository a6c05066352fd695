from typing import Any

import pytest

from llamagateways import gateway, parsed_gateway, raw_gateway
from slotkeeper.api import gateway_memory
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.label_selector import LabelSelector
from slotkeeper.api.resource import InvalidSpec

MIB = 1024**2
REF = {"name": "keys", "key": "token"}


def external(**fields: Any) -> dict[str, Any]:
    """A spec with a valid backend, apart from these fields."""
    valid = {"name": "up", "url": "https://up.example/v1", "models": [{"name": "gpt"}]}
    return {"externalBackends": [{**valid, **fields}]}


def test_an_empty_spec_is_a_gateway_of_all_servers() -> None:
    raw = {**raw_gateway(), "spec": None}

    found = parsed_gateway(raw)

    assert (found.name, found.namespace, found.kind) == ("llm", "default", "LlamaGateway")
    assert found.spec.server_selector.matches({"any": "label"})
    assert found.spec.replicas == 2
    assert found.spec.cors.allowed_origins == ["*"]
    timeouts = found.spec.timeouts
    seconds = (timeouts.connect_seconds, timeouts.first_byte_seconds, timeouts.idle_seconds)
    assert seconds == (5, 630, 300)


def test_all_fields_are_parsed() -> None:
    spec = gateway(
        serverSelector={"matchLabels": {"team": "a"}},
        aliases={"gpt-4o": "qwen"},
        defaultModel="gpt-4o",
        tls={"secretName": "tls"},
        apiKeys={
            "secretRef": {"name": "keys"},
            "models": {"alice": ["qwen"]},
            "maxPriorities": {"alice": 10},
            "limits": {"requestsPerMinute": 60},
            "limitsByKey": {"batch": {"tokensPerMinute": 5, "maxRunningRequests": 2}},
        },
        budget={"gpus": 4, "memory": "64Gi", "maxLoadedModels": 2},
        externalBackends=external(url="http://a.b.svc/", secretRef=REF)["externalBackends"],
    ).spec

    [backend] = spec.external_backends
    assert (backend.name, backend.url, backend.ca_secret_ref) == ("up", "http://a.b.svc/", None)
    assert backend.secret_ref
    assert (backend.secret_ref.name, backend.models[0].upstream_name) == ("keys", None)

    assert spec.aliases == {"gpt-4o": "qwen"}
    assert spec.tls
    assert spec.tls.secret_name == "tls"
    assert spec.api_keys
    assert spec.api_keys.secret_ref.name == "keys"
    assert spec.api_keys.limits.requests_per_minute == 60
    assert spec.api_keys.limits_by_key["batch"].max_running_requests == 2
    assert spec.budget
    assert (spec.budget.gpus, spec.budget.minimum_residency_seconds) == (4, 10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replicas": 0}, "spec.replicas: "),
        ({"aliases": {"a": "b", "b": "c"}}, "must refer to models, not to other aliases"),
        ({"aliases": {"a b": "c"}}, "must have names of up to 128 letters"),
        ({"budget": {}}, "must have gpus, memory or maxLoadedModels"),
        (external(url="https://up.example"), "with its path, such as"),
        (external(url="http://up.example/v1", secretRef=REF), "https:// with secretRef"),
        (external(url="http://up.a.svc/v1", caSecretRef=REF), "https:// with caSecretRef"),
        (external(models=[{"name": "a"}] * 2), "must not contain the name a twice"),
        (external(secretRef={**REF, "key": "hosts"}), "must not be hosts"),
        ({"fallbacks": [{"model": "a", "to": ["a"]}]}, "must not contain the model itself"),
        ({"shadow": [{"model": "a", "to": "a", "percent": 1}]}, "must not be the model itself"),
        ({"fallbacks": [{"model": "a", "to": ["b", "b"]}]}, "must not contain an item twice"),
        (
            {"routes": [{"name": "a", "targets": [{"model": "b", "weight": 0}]}]},
            "targets must contain one with a weight above 0",
        ),
        ({"cors": {"allowedOrigins": ["*", "https://a"]}}, "nothing else beside *"),
        ({"cors": {"allowedOrigins": ["https://a/b"]}}, "a host without a path"),
        (
            {"resources": {"limits": {"memory": "271Mi"}}},
            "resources.limits.memory must be at least 192Mi plus 2.5 times maxBodyBytes",
        ),
        (
            {"serverSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "values must be set if operator is In or NotIn",
        ),
    ],
)
def test_a_broken_rule_names_the_field_and_what_is_allowed(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec) as error:
        gateway(**spec)

    assert message in str(error.value)


@pytest.mark.parametrize("name", ["1st", "a.b", "chat-replicas", "chat-workers", "a" * 64])
def test_a_name_that_no_service_can_have_is_invalid(name: str) -> None:
    with pytest.raises(InvalidSpec, match=r"metadata\.name: "):
        gateway(name)


@pytest.mark.parametrize(
    ("requirement", "selected"),
    [
        ({"operator": "In", "values": ["a", "b"]}, {"a", "b"}),
        ({"operator": "NotIn", "values": ["a"]}, {"b", None}),
        ({"operator": "Exists"}, {"a", "b"}),
        ({"operator": "DoesNotExist"}, {None}),
    ],
)
def test_a_requirement_selects_as_kubernetes_does(
    requirement: dict[str, Any], selected: set[str | None]
) -> None:
    selector = LabelSelector.model_validate(
        {"matchExpressions": [{"key": "team", **requirement}], "matchLabels": {"x": "y"}}
    )

    found = {
        value
        for value in ("a", "b", None)
        if selector.matches({"x": "y", **({"team": value} if value else {})})
    }

    assert found == selected
    assert not selector.matches({"team": "a"})


@pytest.mark.parametrize(
    ("spec", "mib"),
    [
        ({}, 352),
        ({"maxBodyBytes": "1Mi"}, 272),
        ({"maxBodyBytes": "64Mi"}, 512),
        ({"resources": {"limits": {"memory": "1Gi"}}}, 1024),
    ],
)
def test_the_memory_limit_follows_from_the_largest_body(spec: dict[str, Any], mib: int) -> None:
    assert gateway(**spec).spec.memory_limit == mib * MIB


def test_without_a_memory_limit_none_is_derived() -> None:
    spec = gateway(resources={"requests": {"memory": "1Gi"}}).spec

    assert spec.memory_limit is None
    assert spec.fits_memory_limit()


def test_a_memory_limit_bounds_the_bodies_in_memory() -> None:
    body = 32 * MIB

    assert gateway_memory.max_buffered(body) == 4 * body
    assert gateway_memory.max_buffered(body, gateway_memory.min_limit(body)) == 2 * body


def test_a_deleted_gateway_is_recognized() -> None:
    raw = raw_gateway()
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"

    found: LlamaGateway = parsed_gateway(raw)

    assert found.deleting
