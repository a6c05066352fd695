"""Reads the headers of a model's files, and what memory depends on in them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download_headers
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.report import Message
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.memory.dimensions import Dimensions, UnplannableError
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.projector import Projector, read_projector
from slotkeeper.llamacpp.memory.read import FileHeader, read_dimensions, read_header
from slotkeeper.llamacpp.memory.record import encode

UNLIMITED = 2**62

RECORD = "record"
UNPLANNABLE = "unplannable"
"""Members of the termination message: the sizes, or why there are none."""


def inspect(files: Sequence[File], environment: Environment) -> Message:
    """Return the sizes of the model of these files as a record, or why they cannot be planned.
    Raises DownloadError."""
    by_role = {file.role: file for file in files}
    try:
        if File.role not in by_role:
            raise UnplannableError("it is in llama-server's image")
        model = _dimensions(by_role[File.role], environment)
        draft = by_role.get("speculative.draft")
        projector = by_role.get("model.mmproj")
        parts = Parts(
            model=model,
            draft=_dimensions(draft, environment) if draft else None,
            projector=_projector(projector, environment) if projector else None,
        )
        return {RECORD: encode(parts)}
    except UnplannableError as error:
        return {UNPLANNABLE: str(error)}


def received(file: File, environment: Environment) -> list[Path]:
    """Receive the header of each file of a model; return the files that begin with them.

    Raises DownloadError, OSError, UnplannableError."""
    # Only headers are stored: neither the size of the file nor the free space matters.
    limits = replace(environment.limits, max_bytes=UNLIMITED, free_bytes=lambda _: UNLIMITED)
    paths = download_headers(file, replace(environment, limits=limits))
    if not paths:
        raise UnplannableError(
            "it is in a layer of a container image, of which no part can be read: only the "
            "downloaded file can be planned"
        )
    return paths


def headers_of(paths: Sequence[Path]) -> list[FileHeader]:
    """Return the header of each of these files. Raises OSError, UnplannableError."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnplannableError("it is not a GGUF file")
            found.append(read_header(file))
    return found


def _dimensions(file: File, environment: Environment) -> Dimensions:
    headers = _headers(file, environment)
    with _named(file):
        return read_dimensions(headers)


def _projector(file: File, environment: Environment) -> Projector:
    headers = _headers(file, environment)
    with _named(file):
        return read_projector(headers[0])


def _headers(file: File, environment: Environment) -> list[FileHeader]:
    # Of its content only what memory depends on is compared with anything.
    file = replace(file, sha256=None, parts_sha256=(), same_vocabulary=False)
    with _named(file):
        return headers_of(received(file, environment))


@contextmanager
def _named(file: File) -> Iterator[None]:
    """Name the field of a file in errors, unless it is the model."""
    try:
        yield
    except UnplannableError as error:
        if file.role == File.role:
            raise
        raise UnplannableError(f"{file.role}: {error}") from None
    except DownloadError as error:
        if file.role == File.role:
            raise
        raise error.with_message(f"{file.role}: {error.message}") from error
    except OSError as error:
        message = f"{file.role}: cannot read {file.path}: {describe(error)}"
        raise DownloadError(Reason.STORAGE_ERROR, message) from error
