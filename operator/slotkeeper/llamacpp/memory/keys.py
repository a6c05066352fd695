"""Access to what a header states: numbers within bounds, and shapes of tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

from slotkeeper.llamacpp.gguf import Value
from slotkeeper.llamacpp.memory.dimensions import MAX_NUMBER, UnplannableError

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors of a layer, by their names without its number."""


@dataclass(frozen=True)
class Keys:
    """The model's keys, without the prefix of the architecture."""

    architecture: str
    values: Mapping[str, Value]

    def number(
        self, name: str, low: int, high: int, *, layer: int = 0, default: int | None = None
    ) -> int:
        """Return an integer; of an array, that of the layer. Raises UnplannableError.

        Without a default, the key is required.
        """
        value = self.values.get(f"{self.architecture}.{name}", default)
        if isinstance(value, tuple):
            value = value[layer] if layer < len(value) else default
        if value is None:
            raise UnplannableError(f"its GGUF header has no {self.architecture}.{name}")
        if not isinstance(value, int) or not low <= value <= high:
            raise UnplannableError(
                f"{self.architecture}.{name} in its GGUF header is {value!r}, not from {low} to "
                f"{high}"
            )
        return int(value)

    def size(self, name: str, *, layer: int = 0, default: int = 0) -> int:
        """Return a dimension. Raises UnplannableError."""
        return self.number(name, 0, MAX_NUMBER, layer=layer, default=default)


def rows(shapes: Shapes, name: str) -> int:
    """Return how many numbers a matrix results in; 0 if there is none."""
    shape = shapes.get(f"{name}.weight", ())
    return shape[1] if len(shape) > 1 else 0
