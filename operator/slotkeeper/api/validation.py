"""Rules that the API server and the operator both hold a resource to, written once."""

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
    """What must hold of a value: as CEL for the CRD, as Python for the operator.

    As an annotation, `Annotated[str, Rule(…)]`, it rules one field; in a Struct's `rules`, the
    whole object.
    """

    cel: str
    """The rule in CEL, with the value as `self`."""
    message: str
    """A sentence that says what is allowed. It follows the field's path."""
    holds: Callable[[Any], bool]
    """The same rule for a Python value."""

    def check(self, value: Any) -> Any:
        """Give the value back where the rule holds; raise ValueError with the message if not."""
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
    """A rule for strings: the whole of it matches a pattern that RE2 and `re` both understand."""
    return Rule(
        cel=f"self.matches(r'^(?:{pattern})$')",
        message=message,
        holds=lambda text: re.fullmatch(pattern, text, re.ASCII) is not None,
    )


class ApiModel(BaseModel):
    """An object of the API: camelCase outside, snake_case inside; never changed once made.

    Types are strict, as the API server's are. Unknown fields are passed over: the API server
    has pruned those that it does not know, and a newer one may know more than this operator.
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
    """What must hold between the fields."""

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
