"""Reads the headers of a model's files, of this machine or of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.api.split_model import part_count, part_name, part_suffix
from slotkeeper.download.download import Environment
from slotkeeper.download.files import File
from slotkeeper.download.inspect import headers_of, received
from slotkeeper.llamacpp.gguf_layout import Layout, read_layout
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.read import FileHeader
from slotkeeper.plan.options import is_url


@dataclass(frozen=True)
class Headers:
    """What the files of a model state."""

    files: Sequence[FileHeader]
    layout: Layout
    """Of the first one, which is what all of them are for."""


def headers(name: str, role: str, folder: Path, environment: Environment) -> Headers:
    """Return the header of each file of a model. What is received for it is put into the folder.

    `role` is as in File. Raises DownloadError, OSError, UnplannableError.
    """
    wanted = File(name, folder / f"model{part_suffix(1, part_count(name))}.gguf", role=role)
    paths = received(wanted, environment) if is_url(name) else _local(name)
    found = headers_of(paths)
    with paths[0].open("rb") as file:
        layout = read_layout(file)
    if mismatch := wanted.use.mismatch(layout):
        raise UnplannableError(f"the file is {mismatch}")
    return Headers(found, layout)


def _local(name: str) -> Sequence[Path]:
    path, count = Path(name), part_count(name)
    if count == 1:
        return [path]
    return [path.with_name(part_name(path.name, number)) for number in range(1, count + 1)]
