"""Free-form fields of the spec: passed through, up to a depth, a size and a number of fields."""

from typing import Any

import pytest

from llamaservers import raw_server
from slotkeeper.api.crd import crd
from slotkeeper.api.json_object import MAX_BYTES, MAX_DEPTH, MAX_FIELDS
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer


def nested(depth: int) -> Any:
    tree: Any = {}
    for _ in range(depth - 1):
        tree = {"a": tree}
    return tree


def volume(source: Any) -> dict[str, Any]:
    return {"podTemplate": {"volumes": [{"name": "v", "source": source}]}}


def env(source: Any) -> dict[str, Any]:
    return {"podTemplate": {"env": [{"name": "A", "valueFrom": {"source": source}}]}}


def affinity(source: Any) -> dict[str, Any]:
    return {"placement": {"affinity": {"podAffinity": {"source": source}}}}


FIELDS = [volume, env, affinity]


def parse(spec: dict[str, Any]) -> LlamaServer:
    raw = raw_server("chat", **spec)
    raw["metadata"] |= {"namespace": "default", "uid": "u"}
    return LlamaServer.parse(raw)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_at_its_bounds_is_accepted(field: Any) -> None:
    parse(field(nested(MAX_DEPTH - 1)))
    parse(field("x" * (MAX_BYTES - 100)))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (nested(MAX_DEPTH), f"nested deeper than {MAX_DEPTH} levels"),
        (nested(900), "nested deeper"),
        ("x" * MAX_BYTES, f"must have at most {MAX_BYTES} bytes as JSON"),
    ],
)
def test_a_field_beyond_them_is_invalid_and_named(field: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message) as raised:
        parse(field(value))

    assert str(raised.value).startswith(("spec.podTemplate.", "spec.placement.affinity."))


def test_a_volume_has_few_fields() -> None:
    many: dict[str, Any] = {f"a{number}": {} for number in range(MAX_FIELDS)}
    with pytest.raises(InvalidSpec, match=f"at most {MAX_FIELDS} fields"):
        parse({"podTemplate": {"volumes": [{"name": "v", **many}]}})


def test_the_api_server_bounds_every_free_form_field() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    unbounded = [path for path, found in free_form(schema) if "maxProperties" not in found]

    # A string or a number.
    assert unbounded == ["spec.gpu.computeArch"]


def free_form(schema: Any, path: str = "") -> list[tuple[str, Any]]:
    found = [(path, schema)] if schema.get("x-kubernetes-preserve-unknown-fields") else []
    for name, inner in schema.get("properties", {}).items():
        found += free_form(inner, f"{path}.{name}".lstrip("."))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += free_form(schema[key], f"{path}[]")
    return found
