"""Which field manager changed a field."""

from typing import Any

import pytest

from slotkeeper.reconcile.write.diff import Item, Path
from slotkeeper.reconcile.write.managed_fields import last_manager

CONTAINER: Any = {
    "f:template": {
        "f:spec": {
            "f:containers": {
                'k:{"name":"llama-server"}': {".": {}, "f:args": {}, "f:image": {}},
                'k:{"name":"other"}': {".": {}, "f:name": {}},
            }
        }
    }
}


def managed(*entries: tuple[str, str, Any]) -> Any:
    """An object with these entries: manager, time and fields."""
    return {
        "metadata": {
            "managedFields": [
                {"manager": manager, "time": time, "fieldsV1": fields}
                for manager, time, fields in entries
            ]
        }
    }


def image_of(name: str) -> Path:
    item = Item("name", {"name": name, "image": "a"})
    return ("spec", "template", "spec", "containers", item, "image")


ROWS: list[Any] = [
    pytest.param(("spec", "replicas"), {"f:spec": {"f:replicas": {}}}, True, id="the field"),
    pytest.param(("spec", "paused"), {"f:spec": {"f:replicas": {}}}, False, id="another field"),
    pytest.param(("spec",), {"f:spec": {"f:replicas": {}}}, True, id="a field of the object"),
    pytest.param(("spec", "args", "x"), {"f:spec": {"f:args": {}}}, True, id="the whole field"),
    pytest.param(image_of("llama-server"), {"f:spec": CONTAINER}, True, id="an item's field"),
    pytest.param(image_of("other"), {"f:spec": CONTAINER}, False, id="another field of an item"),
    pytest.param(image_of("none"), {"f:spec": CONTAINER}, False, id="no such item"),
    pytest.param(
        ("ports", Item("name", {"name": "http", "port": 80}), "port"),
        {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:port": {}}}},
        True,
        id="a key with a default",
    ),
    pytest.param((), {"f:spec": {}}, False, id="no field"),
]


@pytest.mark.parametrize(("path", "fields", "is_managed"), ROWS)
def test_a_manager_is_found_by_the_fields_that_it_set(
    path: Path, fields: Any, is_managed: bool
) -> None:
    found = last_manager(managed(("hpa", "2026-11-01T12:00:00Z", fields)), [path])

    assert found == ("hpa" if is_managed else "")


def test_of_several_managers_the_last_is_named_and_never_the_operator_itself() -> None:
    fields: Any = {"f:spec": {"f:replicas": {}}}
    item = managed(
        ("kubectl", "2026-11-01T12:00:00Z", fields),
        ("argocd-controller", "2026-11-01T12:00:09Z", fields),
        ("flux", "2026-11-01T12:00:01Z", fields),
        ("slotkeeper", "2026-11-01T13:00:00Z", fields),
    )

    assert last_manager(item, [("spec", "replicas")]) == "argocd-controller"
    assert last_manager({"metadata": {}}, [("spec", "replicas")]) == ""
