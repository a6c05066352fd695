"""What counts as drift, and what the API server or others may do."""

from typing import Any

import pytest

from slotkeeper.reconcile.write.diff import differences, field_path, satisfies

ROWS: list[Any] = [
    pytest.param({"a": 1}, {"a": 1, "b": 2}, True, id="a field that others added"),
    pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, False, id="another value"),
    pytest.param({"a": 1}, {}, False, id="a field that is gone"),
    pytest.param({"a": False}, {}, False, id="a false that was taken out"),
    pytest.param(
        {"publishNotReadyAddresses": False}, {}, True, id="a false that Go leaves out itself"
    ),
    pytest.param({"publishNotReadyAddresses": True}, {}, False, id="a true that is gone"),
    pytest.param({"args": ["a"]}, {"args": ["a", "b"]}, False, id="one more argument"),
    pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, False, id="arguments in disorder"),
    pytest.param(
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "Z"}, {"name": "A", "value": "1"}]},
        True,
        id="another's item in a list of names",
    ),
    pytest.param({"env": [{"name": "A"}]}, {"env": [{"name": "Z"}]}, False, id="an item is gone"),
    pytest.param({"rules": [{"verbs": ["get"]}]}, {"rules": []}, False, id="a rule is gone"),
    pytest.param({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1"}}, True, id="quantity"),
    pytest.param({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}, False, id="less"),
    pytest.param({"limits": {"cpu": 2}}, {"limits": {}}, False, id="a limit is gone"),
    pytest.param({"a": {}}, {"a": {"x": 1}}, True, id="an empty object says nothing"),
    pytest.param({"a": {"x": 1}}, {"a": None}, False, id="null for an object"),
    pytest.param({"a": [1]}, {"a": None}, False, id="null for a list"),
]


@pytest.mark.parametrize(("wanted", "found", "verdict"), ROWS)
def test_what_is_said_holds_or_does_not(wanted: Any, found: Any, verdict: bool) -> None:
    assert satisfies(wanted, found) is verdict
    assert (list(differences(wanted, found)) == []) is verdict


PATHS: list[Any] = [
    pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 3}}, ["a.b", "a.c"], id="values"),
    pytest.param({"a": {"b": {"c": 1}}}, {"a": {}}, ["a.b"], id="all below is gone"),
    pytest.param({"a": {"b": 1}}, {"a": 2}, ["a"], id="another type"),
    pytest.param(
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        {"env": [{"name": "A", "value": "2"}]},
        ["env[A].value", "env[B]"],
        id="items by name",
    ),
    pytest.param({"args": ["a", "b"]}, {"args": ["a"]}, ["args"], id="a list as a whole"),
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
        id="a label",
    ),
]


@pytest.mark.parametrize(("wanted", "found", "paths"), PATHS)
def test_what_differs_is_named_by_its_path(wanted: Any, found: Any, paths: list[str]) -> None:
    assert [field_path(path) for path in differences(wanted, found)] == paths
