"""Whether the files of a split model belong together, from their GGUF headers.

A header states which file of how many it is, and how many tensors all of them have. So a file of
another model is noticed by its numbers, unless both were split into the same numbers of tensors.
"""

from dataclasses import dataclass

from slotkeeper.llamacpp.gguf_layout import Layout


@dataclass(frozen=True)
class Part:
    """Which file of a model is expected. The default is the only one of a model in a single
    file."""

    number: int = 1
    count: int = 1
    tensors_before: int = 0
    """Tensors in the files before it."""
    model_tensors: int | None = None
    """Tensors in all files, as the first one states; None if it does not, or is expected."""

    def mismatch(self, layout: Layout) -> str | None:
        """Return how a header contradicts this, as the end of `the file is …`; None if it does
        not."""
        if self.count == 1 < layout.parts:
            return (
                f"one of {layout.parts} files of a split model: use the URL of the first one, "
                f"whose name must end with -00001-of-{layout.parts:05}.gguf"
            )
        if self.count > 1 and (layout.part, layout.parts) != (self.number, self.count):
            stated = (
                f"file {layout.part} of {layout.parts}" if layout.parts > 1 else "a whole model"
            )
            return f"{stated} according to its GGUF header, not file {self.number} of {self.count}"
        if self.model_tensors is None:
            return None
        if layout.model_tensors != self.model_tensors:
            return (
                f"of another model: that has {layout.model_tensors} tensors, and the model of the "
                f"first file has {self.model_tensors}"
            )
        tensors = self.tensors_before + layout.tensors
        last = self.number == self.count
        if tensors > self.model_tensors or (last and tensors < self.model_tensors):
            return (
                f"of another model: with it, {self.number} of {self.count} files have {tensors} "
                f"tensors, and the model of the first file has {self.model_tensors}"
            )
        return None

    def next(self, layout: Layout) -> "Part":
        """Return what is expected after a file with this header."""
        total = layout.model_tensors if self.number == 1 else self.model_tensors
        tensors = self.tensors_before + layout.tensors
        return Part(self.number + 1, self.count, tensors, total)
