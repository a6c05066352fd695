import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.config import (
    BadSpec,
    GatewayConfig,
    KeyLimits,
    LabelRequirement,
    Selector,
    Timeouts,
    parse_config,
)
from slotkeeper.gateway.target_config import Backend, Fallback, Route, Shadow

FULL = {
    "serverSelector": {
        "matchLabels": {"team": "a"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}],
    },
    "aliases": {"gpt": "qwen"},
    "defaultModel": "gpt",
    "apiKeys": {
        "secretRef": {"name": "keys"},
        "models": {"ann": ["qwen"]},
        "maxPriorities": {"ann": 3},
        "limits": {"requestsPerMinute": 60, "tokensPerMinute": 1000, "maxRunningRequests": 2},
        "limitsByKey": {"ann": {"requestsPerMinute": 1}},
    },
    "cors": {"allowedOrigins": ["https://a.example"]},
    "timeouts": {"connectSeconds": 1, "firstByteSeconds": 2, "idleSeconds": 3},
    "externalBackends": [
        {
            "name": "up",
            "url": "https://[::1]:8443/a/v1/",
            "secretRef": {"name": "a", "key": "b"},
            "firstByteSeconds": 9,
            "models": [{"name": "gpt"}, {"name": "best", "upstreamName": "gpt-2026"}],
        },
        {"name": "root", "url": "http://vllm.ns.svc/", "caSecretRef": {}},
    ],
    "fallbacks": [
        {"model": "qwen", "to": ["gpt", "best"], "when": ["Full", "Tired"]},
        {"model": "gpt", "to": ["qwen"]},
    ],
    "shadow": [{"model": "qwen", "to": "best", "percent": 5}],
    "routes": [{"name": "chat", "targets": [{"model": "qwen", "weight": 9}]}],
    "replicas": 3,
    "maxBodyBytes": "64Mi",
    "unknown": {"of a": "newer release"},
}


def test_a_spec_is_decoded() -> None:
    config = parse_config(FULL)

    assert config == GatewayConfig(
        selector=Selector(
            {"team": "a"}, (LabelRequirement("tier", "NotIn", frozenset(("test",))),)
        ),
        aliases={"gpt": "qwen"},
        default_model="gpt",
        models_by_key={"ann": frozenset(("qwen",))},
        max_priorities={"ann": 3},
        limits=KeyLimits(60, 1000, 2),
        limits_by_key={"ann": KeyLimits(1)},
        allowed_origins=frozenset((b"https://a.example",)),
        timeouts=Timeouts(1, 2, 3),
        replicas=3,
        max_body_bytes=64 * 1024 * 1024,
        backends=(
            Backend(
                name="up",
                tls=True,
                host="::1",
                port=8443,
                path="/a/v1",
                has_key=True,
                first_byte_seconds=9,
                models=(("gpt", "gpt"), ("best", "gpt-2026")),
            ),
            Backend("root", tls=False, host="vllm.ns.svc", port=80, path="", has_ca=True),
        ),
        fallbacks={
            "qwen": Fallback(("gpt", "best"), frozenset(("Full",))),
            "gpt": Fallback(("qwen",), frozenset(("Full", "Failed", "Timeout"))),
        },
        routes={"chat": Route((("qwen", 9),))},
        shadows={"qwen": Shadow("best", 5)},
    )
    assert config.limits_of("ann") == KeyLimits(1)
    assert config.limits_of("bob") == KeyLimits(60, 1000, 2)


@pytest.mark.parametrize("spec", [None, {}, dict.fromkeys(FULL)])
def test_missing_fields_have_defaults(spec: Any) -> None:
    assert parse_config(spec) == GatewayConfig()


def paths(tree: Any, *path: str) -> list[tuple[str, ...]]:
    """Return the path of each value of objects."""
    if not isinstance(tree, dict):
        return []
    return [
        each for key, value in tree.items() for each in [(*path, key), *paths(value, *path, key)]
    ]


KNOWN = [path for path in paths(FULL) if path[0] != "unknown" and "secretRef" not in path]


@pytest.mark.parametrize("path", KNOWN, ids=".".join)
@pytest.mark.parametrize("value", [True, 1.5, -1, "\x00", ["a", 1], [[]]])
def test_a_field_of_another_type_is_named(path: tuple[str, ...], value: Any) -> None:
    spec = json.loads(json.dumps(FULL))
    parent = spec
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    if isinstance(value, str) and path[-1] in {"team", "gpt", "defaultModel"}:
        parse_config(spec)
        return

    with pytest.raises(BadSpec, match=path[0]):
        parse_config(spec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(st.dictionaries(st.sampled_from([*FULL]), JSON) | JSON)
def test_any_json_is_decoded_or_rejected(tree: Any) -> None:
    with suppress(BadSpec):
        assert isinstance(parse_config(tree), GatewayConfig)


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ["a", "c"], [{"key": "a"}]),
        ("NotIn", ["a"], [{"key": "b"}, {}]),
        ("Exists", None, [{"key": "a"}, {"key": "b"}]),
        ("DoesNotExist", None, [{}]),
    ],
)
def test_requirements_match_as_in_kubernetes(
    operator: str, values: list[str] | None, matching: list[dict[str, str]]
) -> None:
    expression = {"key": "key", "operator": operator, "values": values}
    selector = parse_config({"serverSelector": {"matchExpressions": [expression]}}).selector

    assert [each for each in ({"key": "a"}, {"key": "b"}, {}) if selector.matches(each)] == matching
