from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from slotkeeper.api.crd import FOLDERS, HEADER, crd, files, render, structural
from slotkeeper.api.definitions import DEFINITIONS, Definition
from slotkeeper.api.validation import RULES_KEY, ApiModel, Rule, matches


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas in it, each with its path."""
    yield path, schema
    for name, property_ in schema.get("properties", {}).items():
        yield from schemas(property_, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from schemas(schema[key], f"{path}[]")


def all_schemas() -> list[tuple[str, dict[str, Any]]]:
    """All schemas of all CRDs, each with its path."""
    return [one for definition in DEFINITIONS for one in schemas_of(definition)]


def schemas_of(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    (version,) = crd(definition)["spec"]["versions"]
    return schemas(version["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.kind)
def test_each_crd_file_is_generated_from_the_models(definition: Definition) -> None:
    for file in files(definition):
        assert file.read_text() == render(crd(definition)), "run `make crds`"


def test_each_crd_file_is_that_of_a_resource() -> None:
    generated = {file for definition in DEFINITIONS for file in files(definition)}

    assert {file for folder in FOLDERS for file in folder.iterdir()} == generated


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.kind)
def test_a_crd_file_is_yaml_with_a_header(definition: Definition) -> None:
    text = render(crd(definition))

    assert text.startswith(HEADER)
    assert yaml.safe_load(text) == crd(definition)


def test_each_field_has_a_description() -> None:
    described = [
        (path, schema)
        for path, schema in all_schemas()
        if path.startswith((".spec", ".status")) and not path.endswith("[]")
    ]

    assert len(described) > 30
    assert [path for path, schema in described if not schema.get("description")] == []


def test_each_default_is_in_the_description() -> None:
    for path, schema in all_schemas():
        if "default" in schema:
            assert "Default: " in schema["description"], path


def test_each_field_is_bounded_to_keep_rules_within_the_cost_budget() -> None:
    for path, schema in all_schemas():
        if not path.startswith(".spec"):
            continue
        bounds = {"string": "maxLength", "array": "maxItems"}
        if bound := bounds.get(schema.get("type", "")):
            assert bound in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


def test_a_status_has_no_defaults_and_no_required_fields() -> None:
    for definition in DEFINITIONS:
        status = [each for path, each in schemas_of(definition) if path.startswith(".status")]

        assert all("default" not in schema for schema in status)
        assert "required" not in status[0]


class Inner(ApiModel):
    """An inner object."""

    rules: ClassVar = (Rule("self.low <= self.high", "low first", lambda v: v.low <= v.high),)

    low: int = 0
    """Low."""
    high: int | None = None
    """High,
    on two lines."""


class Outer(ApiModel):
    """An outer object."""

    inner_one: Inner = Inner(high=2)
    """The description next to the reference."""
    inners: list[Inner] = Field(max_length=3)
    """Many."""
    by_name: dict[str, Inner] = Field(default_factory=dict, max_length=2)
    """By name."""
    kind: Literal["one"] = "one"
    """Of one kind."""
    word: (
        Annotated[str, matches("[a-z]+", "must be a word"), matches(".", "must be short")] | None
    ) = None
    """A word."""


def test_pydantic_s_schema_becomes_structural() -> None:
    inner = {
        "description": "An inner object.",
        "type": "object",
        RULES_KEY: [{"rule": "self.low <= self.high", "message": "low first"}],
        "properties": {
            "low": {"description": "Low.", "type": "integer", "default": 0},
            "high": {"description": "High, on two lines.", "type": "integer"},
        },
    }

    assert structural(Outer, "validation") == {
        "description": "An outer object.",
        "type": "object",
        "required": ["inners"],
        "properties": {
            "innerOne": {
                **inner,
                "description": "The description next to the reference.",
                "default": {"low": 0, "high": 2},
            },
            "inners": {"description": "Many.", "type": "array", "maxItems": 3, "items": inner},
            "byName": {
                "description": "By name.",
                "type": "object",
                "maxProperties": 2,
                "additionalProperties": inner,
            },
            "kind": {
                "description": "Of one kind.",
                "type": "string",
                "default": "one",
                "enum": ["one"],
            },
            "word": {
                "description": "A word.",
                "type": "string",
                RULES_KEY: [
                    {"rule": "self.matches(r'^(?:[a-z]+)$')", "message": "must be a word"},
                    {"rule": "self.matches(r'^(?:.)$')", "message": "must be short"},
                ],
            },
        },
    }
