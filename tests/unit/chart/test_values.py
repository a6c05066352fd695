import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import slotkeeper
from chart import CHART, Json, described_values, load, undescribed_values, values

SET_BY_HELM = "global"
TEMPLATES = sorted(path for path in (CHART / "templates").rglob("*") if path.is_file())


def test_every_value_is_described() -> None:
    assert list(undescribed_values()) == []


def test_the_readme_has_the_values_their_defaults_and_descriptions() -> None:
    readme = (CHART / "README.md").read_text()

    rows = [line for line in readme.splitlines() if line.startswith("| `")]

    assert rows == [value.row for value in described_values()]


def test_the_schema_has_exactly_the_values() -> None:
    assert set(_schema_leaves(load("values.schema.json"))) == set(_leaves(values()))


def test_unknown_fields_are_rejected_wherever_the_fields_are_listed() -> None:
    schema = load("values.schema.json")

    closed = [node.get("additionalProperties") for node in _nodes(schema) if "properties" in node]

    assert set(closed) == {False}


def test_the_chart_has_the_version_of_the_code() -> None:
    chart = load("Chart.yaml")

    assert (chart["version"], chart["appVersion"]) == (slotkeeper.__version__,) * 2


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_every_value_that_a_template_reads_exists(template: Path) -> None:
    for path in re.findall(r"\.Values\.([\w.]+\w)", template.read_text()):
        tree = values()
        for key in path.split("."):
            assert key in tree, path
            tree = tree[key]


def _leaves(tree: Json, prefix: str = "") -> Iterator[str]:
    """Paths of the values, down to objects whose fields the schema does not list."""
    schema = load("values.schema.json")
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and "properties" in _schema_at(schema, path):
            yield from _leaves(value, f"{path}.")
        else:
            yield path


def _schema_leaves(schema: Json, root: Json | None = None, prefix: str = "") -> Iterator[str]:
    root = root or schema
    for key, node in schema["properties"].items():
        resolved = _resolve(node, root)
        if "properties" in resolved:
            yield from _schema_leaves(resolved, root, f"{prefix}{key}.")
        elif key != SET_BY_HELM:
            yield f"{prefix}{key}"


def _schema_at(schema: Json, path: str) -> Json:
    node = schema
    for key in path.split("."):
        node = _resolve(node["properties"].get(key, {}), schema)
    return node


def _resolve(node: Json, root: Json) -> Json:
    return root["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _nodes(node: object) -> Iterator[Json]:
    match node:
        case dict():
            yield node
            for child in node.values():
                yield from _nodes(child)
        case list():
            for child in node:
                yield from _nodes(child)
        case _:
            pass
