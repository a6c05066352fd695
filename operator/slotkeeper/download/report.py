"""The result of a download as the container's termination message: one line of JSON."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from slotkeeper.download.errors import DownloadError
from slotkeeper.download.records import FileRecord
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.gguf import GgufMetadata, read_metadata

MAX_BYTES = 4096
"""The kubelet's limit for a termination message."""

MAX_NAME = 255
"""Characters of the file's name."""

log = logging.getLogger(__name__)

Message = Mapping[str, str | int]


def success(record: FileRecord, path: Path) -> Message:
    """Return the size, the checksum, the metadata and, unless the URL has it, the name of the model
    at `path`."""
    metadata = asdict(_metadata(path))
    known = {_camel_case(name): value for name, value in metadata.items() if value is not None}
    log.info("model metadata: %s", known or "none")
    sha256 = {"sha256": record.sha256} if record.sha256 else {}
    # A registry may name a file by what is no Unicode text.
    name = record.name.encode(errors="replace").decode()
    file = name.rpartition("/")[2][:MAX_NAME]
    return {"sizeBytes": record.size, **({"file": file} if file else {}), **sha256, **known}


def failure(error: DownloadError) -> Message:
    """Return the reason and the message of an error."""
    return {"reason": error.reason, "message": error.message}


def write_termination_message(path: Path, message: Message) -> None:
    """Write the message to the kubelet's file; if it does not exist, log that only."""
    text = _line(message)
    try:
        # The file is not created: outside of a pod, nothing should be written to /dev.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        log.info("no termination log: %s", path)


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _line(message: Message) -> str:
    """Return JSON within MAX_BYTES: texts are truncated, since two long URLs would exceed it."""
    text = json.dumps(message)
    while len(text) + 1 > MAX_BYTES:
        longest = max(message, key=lambda name: len(str(message[name])))
        value = str(message[longest])
        message = {**message, longest: value[: len(value) * 9 // 10] + "…"}
        text = json.dumps(message)
    return text


def _metadata(path: Path) -> GgufMetadata:
    try:
        with path.open("rb") as file:
            return read_metadata(file)
    except OSError as error:
        # The file has been verified already: missing metadata must not prevent serving.
        log.warning("cannot read %s: %s", path, describe(error))
        return GgufMetadata()
