"""Objects of Kubernetes' own that are passed on as they are written."""

from typing import Annotated, Any

from pydantic import WithJsonSchema

JsonObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""What Kubernetes understands better than we do. It is checked when the child that it becomes a
part of is applied: a child that is refused is said in the conditions."""
