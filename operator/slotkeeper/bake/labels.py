"""Labels of an image: where its files are from, without credentials."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.download.address import redact
from slotkeeper.download.files import File
from slotkeeper.download.records import FileRecord
from slotkeeper.llamacpp.gguf import GgufMetadata

PREFIX = "slotkeeper.dev"
_OCI = "org.opencontainers.image"
_SPECIAL = re.compile(r'["$\\]')
"""Characters that builders expand in the value of a label."""
_TEXT = re.compile(r"[-\w .:+]{1,100}", re.ASCII)


@dataclass(frozen=True)
class BakedFile:
    """A file of the spec that is in place, with all of its parts."""

    field: str
    """Such as `model`, `mmproj` or `adapter-0`."""
    url: str
    names: tuple[str, ...]
    """Of the parts, in their order."""
    sha256: tuple[str, ...]
    size: int


def baked_file(file: File) -> BakedFile:
    """Return a downloaded file with what the records next to it state."""
    count = part_count(file.url)
    paths = [file.path.with_name(part_name(file.path.name, n)) for n in range(1, count + 1)]
    records = [FileRecord.read(_record(path)) for path in paths]
    field = file.path.name.partition(".")[0]
    return BakedFile(
        field=re.sub("-[0-9]{5}-of-[0-9]{5}$", "", field),
        url=redact(file.url),
        names=tuple(path.name for path in paths),
        sha256=tuple(record.sha256 for record in records if record),
        size=sum(path.stat().st_size for path in paths),
    )


def labels(files: Sequence[BakedFile], base: str, metadata: GgufMetadata) -> Mapping[str, str]:
    """Return the labels of the image. What the model's header states is untrusted: text that is
    not plain is left out."""
    found = {
        f"{_OCI}.title": metadata.name,
        f"{PREFIX}/model-architecture": metadata.architecture,
        f"{PREFIX}/model-quantization": metadata.quantization,
    }
    return {
        f"{_OCI}.base.name": base,
        f"{_OCI}.description": "llama-server with a model in /models",
        **{key: text for key, text in found.items() if text and _TEXT.fullmatch(text)},
        **dict(_of_files(files)),
    }


def _of_files(files: Sequence[BakedFile]) -> Iterator[tuple[str, str]]:
    for file in files:
        url = _SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", file.url)
        yield f"{PREFIX}/{file.field}-url", url
        yield f"{PREFIX}/{file.field}-sha256", ",".join(file.sha256)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
