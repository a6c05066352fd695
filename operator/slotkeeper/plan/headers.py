"""Reads the headers of a model's files, of this machine or of the network."""

from collections.abc import Sequence
from pathlib import Path

from slotkeeper.api.split_model import part_count, part_name, part_suffix
from slotkeeper.download.download import Environment
from slotkeeper.download.files import File
from slotkeeper.download.inspect import headers_of, received_headers
from slotkeeper.llamacpp.memory.read import FileHeader
from slotkeeper.plan.options import is_url


def headers(name: str, role: str, folder: Path, environment: Environment) -> list[FileHeader]:
    """Return the header of each file of a model. What is received for it is put into the folder.

    `role` is as in File. Raises DownloadError, OSError, UnplannableError.
    """
    if not is_url(name):
        return headers_of(_local(name))
    ending = f"model{part_suffix(1, part_count(name))}.gguf"
    return received_headers(File(name, folder / ending, role=role), environment)


def _local(name: str) -> Sequence[Path]:
    path = Path(name)
    return [
        path.with_name(part_name(path.name, number)) for number in range(1, part_count(name) + 1)
    ]
