"""What a fetch has to say in the end, as the kubelet passes it on: a line of JSON."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from slotkeeper.download.errors import DownloadError
from slotkeeper.download.records import FileRecord
from slotkeeper.llamacpp.gguf import HEAD_BYTES, GgufMetadata, read_metadata

AT_MOST_BYTES = 4096
"""What the kubelet takes of a termination message."""

log = logging.getLogger(__name__)

Words = Mapping[str, str | int]


def success(receipt: FileRecord, path: Path) -> Words:
    """What the model at `path` is, as far as it says so itself."""
    metadata = asdict(_facts(path))
    known = {_camel_case(name): value for name, value in metadata.items() if value is not None}
    log.info("the model says of itself: %s", known or "nothing")
    return {"sizeBytes": receipt.size, "sha256": receipt.sha256, **known}


def failure(error: DownloadError) -> Words:
    """Why a file is not in place."""
    return {"reason": error.reason, "message": error.message}


def write_termination_message(path: Path, words: Words) -> None:
    """Tell the kubelet; only a log line where there is no kubelet."""
    text = _line(words)
    try:
        # Not created where it is missing: outside of a pod, /dev is no place for our files.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        log.info("no termination log at %s", path)


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _line(words: Words) -> str:
    """The words as JSON that fits: two long URLs in a message would not."""
    text = json.dumps(words)
    while len(text) + 1 > AT_MOST_BYTES:
        longest = max(words, key=lambda name: len(str(words[name])))
        kept = str(words[longest])
        words = {**words, longest: kept[: len(kept) * 9 // 10] + "…"}
        text = json.dumps(words)
    return text


def _facts(path: Path) -> GgufMetadata:
    try:
        with path.open("rb") as file:
            return read_metadata(file.read(HEAD_BYTES))
    except OSError as error:
        # It has been checked already: what it says of itself is not worth an outage.
        log.warning("cannot read %s: %s", path, error)
        return GgufMetadata()
