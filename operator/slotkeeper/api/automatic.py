"""Numbers that the operator can choose: `auto` instead of a number."""

from typing import Annotated, Any, Final, Literal

from pydantic import StrictInt, WithJsonSchema

from slotkeeper.api.validation import Rule

AUTO: Final = "auto"
"""What fits into the memory of the GPUs."""

MIN_CONTEXT = 256
MAX_CONTEXT = 16_777_216
DEFAULT_CONTEXT = 4096
MAX_LAYERS = 998

_Number = StrictInt | Literal["auto"]


def _schema() -> dict[str, Any]:
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "maxLength": 8,
    }


def _rule(low: int, high: int) -> Rule:
    return Rule(
        f"type(self) == int ? self >= {low} && self <= {high} : "
        f"type(self) == string && self == '{AUTO}'",
        f"must be a number from {low} to {high}, or {AUTO}",
        lambda value: value == AUTO if isinstance(value, str) else low <= value <= high,
    )


ContextPerSlot = Annotated[_Number, WithJsonSchema(_schema()), _rule(MIN_CONTEXT, MAX_CONTEXT)]

Layers = Annotated[_Number, WithJsonSchema(_schema()), _rule(0, MAX_LAYERS)]

RULES = (
    Rule(
        "type(self.contextPerSlot) == int || (self.gpu.count > 0 && !has(self.embeddings))",
        "contextPerSlot must not be auto if gpu.count is 0, or with embeddings: it is chosen by "
        "the memory of the GPUs, and batches of embeddings are as long. Set a number",
        lambda spec: (
            spec.context_per_slot != AUTO or (spec.gpu.count > 0 and spec.embeddings is None)
        ),
    ),
)
"""Rules across fields of LlamaServerSpec."""
