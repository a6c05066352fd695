"""What the custom resources have in common: identity, status, and how they are parsed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from slotkeeper.api.validation import ApiModel, Rule, matches

Spec = TypeVar("Spec", bound=ApiModel)

SERVICE_NAME = matches(
    "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
    "must be 1 to 63 lower-case letters, digits and '-', start with a letter and not end "
    "with '-': it is the name of the Service for clients",
)
"""Rule of `metadata.name`."""


class InvalidSpec(ValueError):  # noqa: N818 (the name of a condition's reason)
    """A resource breaks a rule. The message contains the field and what is allowed."""


@dataclass(frozen=True)
class Resource:
    """A custom resource as read from the cluster, without its spec."""

    kind: ClassVar[str]
    noun: ClassVar[str]
    """How messages name it: "server" or "gateway"."""

    name: str
    namespace: str
    uid: str
    generation: int
    deleting: bool
    """Whether it has a deletionTimestamp: only its finalizers are left."""
    status: Mapping[str, Any]
    """The status as read; empty if none has been written."""


def resource_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Resource from a JSON tree."""
    metadata = raw["metadata"]
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 0),
        "deleting": "deletionTimestamp" in metadata,
        "status": raw.get("status") or {},
    }


def parse_spec(model: type[Spec], name_rules: Sequence[Rule], raw: Mapping[str, Any]) -> Spec:
    """Parse the spec of a resource. Raises InvalidSpec if the spec or the name breaks a rule."""
    try:
        for rule in name_rules:
            rule.check(raw["metadata"]["name"])
    except ValueError as error:
        raise InvalidSpec(f"metadata.name: {error}") from None
    try:
        return model.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        raise InvalidSpec(_message(error)) from None


def _message(error: ValidationError) -> str:
    problems = (
        (".".join(str(part) for part in ("spec", *problem["loc"])), problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return "; ".join(
        f"{path}: {message.removeprefix('Value error, ')}" for path, message in problems
    )
