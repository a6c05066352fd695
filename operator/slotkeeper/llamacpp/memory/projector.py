"""The projector of a multimodal model (mmproj), which turns images into vectors."""

from dataclasses import dataclass

from slotkeeper.llamacpp.gguf_layout import BLOCKS
from slotkeeper.llamacpp.memory.dimensions import MAX_BYTES, MAX_NUMBER, UnplannableError
from slotkeeper.llamacpp.memory.keys import Keys
from slotkeeper.llamacpp.memory.read import FileHeader

MAX_PATCHES = 65_536
"""Of an image."""


@dataclass(frozen=True)
class Projector:
    """A projector."""

    weights: int
    """Bytes of all tensors."""
    compute: int
    """Bytes of activations for an image of the size that the model was trained with. Models that
    accept other sizes can need several times as much."""


def read_projector(header: FileHeader) -> Projector:
    """Return the sizes of a projector from the header of its file. Raises UnplannableError."""
    if header.values.get("general.architecture") != "clip":
        raise UnplannableError("it is not a projector: its architecture is not clip")
    weights = 0
    for tensor in header.tensors:
        elements, size = BLOCKS.get(tensor.type, (1, 4))
        weights += tensor.elements // elements * size
    if weights > MAX_BYTES:
        raise UnplannableError("its tensors have more than a petabyte")
    keys = Keys("clip", header.values)
    image, patch = keys.size("vision.image_size"), keys.size("vision.patch_size")
    if not image or not patch:
        return Projector(weights, 0)
    patches = min((image // patch) ** 2, MAX_PATCHES)
    per_patch = (
        5 * keys.number("vision.embedding_length", 1, MAX_NUMBER)
        + 3 * keys.size("vision.feed_forward_length")
        + keys.size("vision.attention.head_count") * patches
    )
    return Projector(weights, 4 * patches * per_patch)
