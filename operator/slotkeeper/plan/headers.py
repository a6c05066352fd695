"""Reads the headers of a model's files, of this machine or of the network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slotkeeper.api.split_model import part_count, part_name, part_suffix
from slotkeeper.download.download import Environment, download_headers
from slotkeeper.download.files import File
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.read import FileHeader, read_header
from slotkeeper.plan.options import is_url

UNLIMITED = 2**62


def headers(name: str, role: str, folder: Path, environment: Environment) -> list[FileHeader]:
    """Return the header of each file of a model. What is received for it is put into the folder.

    `role` is as in File. Raises DownloadError, OSError, UnplannableError.
    """
    paths = _received(name, role, folder, environment) if is_url(name) else _local(name)
    found = []
    for path in paths:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnplannableError("it is no GGUF file")
            found.append(read_header(file))
    return found


def _received(name: str, role: str, folder: Path, environment: Environment) -> Sequence[Path]:
    ending = f"model{part_suffix(1, part_count(name))}.gguf"
    # Only headers are stored: neither the size of the file nor the free space matters.
    limits = replace(environment.limits, max_bytes=UNLIMITED, free_bytes=lambda _: UNLIMITED)
    file = File(name, folder / ending, role=role)
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
