"""Reads the headers of a model's files, of this machine or of the network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slotkeeper.api.split_model import part_count, part_name, part_suffix
from slotkeeper.download.download import Environment, download_headers
from slotkeeper.download.files import File
from slotkeeper.llamacpp.gguf_layout import Layout, read_layout
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.read import FileHeader, read_header
from slotkeeper.plan.options import is_url

UNLIMITED = 2**62


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
    paths = _received(wanted, environment) if is_url(name) else _local(name)
    found = []
    for path in paths:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnplannableError("it is no GGUF file")
            found.append(read_header(file))
    with paths[0].open("rb") as file:
        layout = read_layout(file)
    if mismatch := wanted.use.mismatch(layout):
        raise UnplannableError(f"the file is {mismatch}")
    return Headers(found, layout)


def _received(file: File, environment: Environment) -> Sequence[Path]:
    # Only headers are stored: neither the size of the file nor the free space matters.
    limits = replace(environment.limits, max_bytes=UNLIMITED, free_bytes=lambda _: UNLIMITED)
    paths = download_headers(file, replace(environment, limits=limits))
    if not paths:
        raise UnplannableError(
            "it is in a layer of a container image, of which no part can be read: download it, and "
            "plan with the file"
        )
    return paths


def _local(name: str) -> Sequence[Path]:
    path = Path(name)
    return [
        path.with_name(part_name(path.name, number)) for number in range(1, part_count(name) + 1)
    ]
