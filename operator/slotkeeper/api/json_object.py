"""Kubernetes objects that are passed through unchanged."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from slotkeeper.bounded_json import check_depth

MAX_DEPTH = 12
"""Of nested objects and lists in a free-form field. Pods need ten, for a volume's node selector."""

MAX_BYTES = 32 * 1024
"""Of a free-form field as JSON."""

MAX_FIELDS = 8
"""Of such an object itself. The API server enforces this; the other two limits only we can."""


def bounded(value: Any) -> Any:
    """Return the value of a free-form field. Raises ValueError if it breaks a bound."""
    check_depth(value, MAX_DEPTH)
    size = len(json.dumps(value, separators=(",", ":")))
    if size > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_BYTES} bytes as JSON, not {size}")
    if len(value) > MAX_FIELDS:
        raise ValueError(f"must have at most {MAX_FIELDS} fields")
    return value


JsonObject = Annotated[
    dict[str, Any],
    AfterValidator(bounded),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_FIELDS,
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]
"""Validated only by the API server, apart from these bounds, when the child object that contains it
is applied. A rejection is reported in the conditions."""
