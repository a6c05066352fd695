"""What counts as drift: values that differ from the manifest's, and not what others add."""

from typing import Any

import pytest

from slotkeeper.reconcile.write.diff import differences, field_path, satisfies

ROWS: list[Any] = [
    pytest.param({"a": 1}, {"a": 1, "b": 2}, True, id="field added by others"),
    pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, False, id="another value"),
    pytest.param({"a": 1}, {}, False, id="removed field"),
    pytest.param({"a": False}, {}, False, id="removed false"),
    pytest.param(
        {"publishNotReadyAddresses": False}, {}, True, id="false that the API server omits"
    ),
    pytest.param({"publishNotReadyAddresses": True}, {}, False, id="removed true"),
    pytest.param({"selector": {"a": "b"}}, {"selector": {"a": "b"}}, True, id="selector"),
    pytest.param(
        {"selector": {"a": "b"}},
        {"selector": {"a": "b", "c": "d"}},
        False,
        id="requirement added to a selector",
    ),
    pytest.param({"args": ["a"]}, {"args": ["a", "b"]}, False, id="additional argument"),
    pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, False, id="reordered arguments"),
    pytest.param(
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "Z"}, {"name": "A", "value": "1"}]},
        True,
        id="item added by others to a list by name",
    ),
    pytest.param({"env": [{"name": "A"}]}, {"env": [{"name": "Z"}]}, False, id="removed item"),
    pytest.param({"rules": [{"verbs": ["get"]}]}, {"rules": []}, False, id="removed rule"),
    pytest.param({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1"}}, True, id="quantity"),
    pytest.param(
        {"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}, False, id="smaller quantity"
    ),
    pytest.param({"limits": {"cpu": 2}}, {"limits": {}}, False, id="removed limit"),
    pytest.param({"a": {}}, {"a": {"x": 1}}, True, id="an empty object specifies nothing"),
    pytest.param({"a": {"x": 1}}, {"a": None}, False, id="null instead of an object"),
    pytest.param({"a": [1]}, {"a": None}, False, id="null instead of a list"),
]


@pytest.mark.parametrize(("desired", "found", "satisfied"), ROWS)
def test_an_object_satisfies_a_manifest_or_differs(
    desired: Any, found: Any, satisfied: bool
) -> None:
    assert satisfies(desired, found) is satisfied
    assert (list(differences(desired, found)) == []) is satisfied


PATHS: list[Any] = [
    pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 3}}, ["a.b", "a.c"], id="values"),
    pytest.param({"a": {"b": {"c": 1}}}, {"a": {}}, ["a.b"], id="removed object"),
    pytest.param({"a": {"b": 1}}, {"a": 2}, ["a"], id="another type"),
    pytest.param(
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        {"env": [{"name": "A", "value": "2"}]},
        ["env[A].value", "env[B]"],
        id="items by name",
    ),
    pytest.param({"args": ["a", "b"]}, {"args": ["a"]}, ["args"], id="whole list"),
    pytest.param(
        {"limits": {"cpu": 1, "memory": "1Gi"}},
        {"limits": {"cpu": "1000m"}},
        ["limits"],
        id="quantities",
    ),
    pytest.param(
        {"labels": {"slotkeeper.dev/server": "a", "b": "c"}},
        {"labels": {"b": "c"}},
        ["labels[slotkeeper.dev/server]"],
        id="label",
    ),
]


@pytest.mark.parametrize(("desired", "found", "paths"), PATHS)
def test_differences_are_reported_by_path(desired: Any, found: Any, paths: list[str]) -> None:
    assert [field_path(path) for path in differences(desired, found)] == paths
