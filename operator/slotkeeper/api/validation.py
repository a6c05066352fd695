"""Validation rules, each written once for the API server (CEL) and for the operator (Python)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic import model_validator as validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

RULES_KEY = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """A validation rule.

    As an annotation, `Annotated[str, Rule(…)]`, it applies to one field; in an ApiModel's `rules`,
    to the whole object.
    """

    cel: str
    """The rule in CEL, with the value as `self`."""
    message: str
    """What is allowed, and why. It follows the field's path in error messages."""
    holds: Callable[[Any], bool]
    """The same rule in Python."""

    def check(self, value: Any) -> Any:
        """Return the value if the rule holds. Raises ValueError with the message otherwise."""
        if not self.holds(value):
            raise ValueError(self.message)
        return value

    @property
    def schema(self) -> dict[str, str]:
        """The rule as an item of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message}

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler(schema)
        return described | {RULES_KEY: [*described.get(RULES_KEY, []), self.schema]}


def matches(pattern: str, message: str) -> Rule:
    """Return the rule that a whole string matches a pattern, in a syntax of both RE2 and `re`."""
    return Rule(
        cel=f"self.matches(r'^(?:{pattern})$')",
        message=message,
        holds=lambda text: re.fullmatch(pattern, text, re.ASCII) is not None,
    )


class ApiModel(BaseModel):
    """Base class of the API's objects: camelCase in JSON, snake_case in Python; immutable.

    Types are strict, as in the API server. Unknown fields are ignored: the API server has pruned
    fields that are not in its CRD, which may be newer than this operator.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_by_alias=True,
        validate_by_name=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules across fields."""

    @validator(mode="after")
    def _rules_hold(self) -> "ApiModel":
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            described[RULES_KEY] = [rule.schema for rule in cls.rules]
        return described
