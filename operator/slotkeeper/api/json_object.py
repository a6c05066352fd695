"""Kubernetes objects that are passed through unchanged."""

from typing import Annotated, Any

from pydantic import WithJsonSchema

JsonObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Validated only by the API server, when the child object that contains it is applied. A rejection
is reported in the conditions."""
