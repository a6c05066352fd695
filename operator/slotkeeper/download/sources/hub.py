"""Files of hf:// URLs, from the API of Hugging Face's hub.

One request resolves a revision to a commit, and lists the files with their SHA-256. The files are
then downloaded as any others, from the commit.

The package huggingface_hub is not used: it is 30 MB with what it requires, most of it another HTTP
client and another transfer, past which the checks of URLs, tokens and certificates would have to be
brought. The tests compare both.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from slotkeeper.api.model_url import HubAddress
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.download.address import redact, source_id
from slotkeeper.download.errors import DownloadError, shown
from slotkeeper.download.files import File, RemoteFile
from slotkeeper.download.records import HubFile, HubRecord, write
from slotkeeper.download.sources.document import get_document
from slotkeeper.llamacpp.gguf_split import Part

RECORD = ".hub.json"

_MAX_BYTES = 4 * 1024**2
"""Of the list of files, which has a few hundred bytes for each."""

_MAX_LISTED = 8
"""Files that an error message lists."""

_COMMIT = "[0-9a-f]{40,64}"
_SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class Hub:
    """A hub, and the client for it, which sends the token."""

    client: httpx.Client
    endpoint: str


def resolve(file: File, address: HubAddress, hub: Hub, record_path: Path) -> Sequence[RemoteFile]:
    """Return the files to fetch.

    An earlier start of the same URL has recorded them; otherwise the hub lists them, and they are
    recorded.

    Raises DownloadError and OSError.
    """
    endpoint = hub.endpoint.rstrip("/")
    source = source_id(f"{endpoint} {file.url}")
    record = HubRecord.read(record_path)
    if record is None or record.source != source or not _is_valid(record, part_count(file.url)):
        commit, listed = _list(address, endpoint, hub.client)
        files = _select(file.url, address, commit, listed)
        _require_expected(file, files)
        record = HubRecord(source, commit, tuple(files))
        write(record_path, record)
    return [
        RemoteFile(
            url=f"{endpoint}/{address.repository}/resolve/{record.commit}/{quote(each.name)}",
            path=file.path.with_name(part_name(file.path.name, number)),
            sha256=file.sha256_of(number) or each.sha256,
            identity=f"{endpoint} {address.repository} {record.commit} {each.name}",
            part=Part(number, len(record.files)),
            name=each.name,
        )
        for number, each in enumerate(record.files, 1)
    ]


def _is_valid(record: HubRecord, count: int) -> bool:
    """Whether a record can be used: other pods may write to a volume that they share."""
    return (
        re.fullmatch(_COMMIT, record.commit) is not None
        and len(record.files) == count
        and all(
            _is_path(each.name) and (each.sha256 is None or re.fullmatch(_SHA256, each.sha256))
            for each in record.files
        )
    )


def _is_path(name: str) -> bool:
    """Whether a name stays in its repository, as a part of a URL."""
    return {"", ".", ".."}.isdisjoint(name.split("/"))


def _list(
    address: HubAddress, endpoint: str, client: httpx.Client
) -> tuple[str, Sequence[HubFile]]:
    """Return the commit of the revision, and the files of the repository."""
    revision = quote(address.revision, safe="")
    url = f"{endpoint}/api/models/{address.repository}/revision/{revision}"
    try:
        tree = get_document(client, url, max_bytes=_MAX_BYTES, parameters={"blobs": "true"}).tree
    except DownloadError as error:
        raise _with_hint(address, error) from error
    match tree:
        case {"sha": str(commit), "siblings": [*siblings]} if re.fullmatch(_COMMIT, commit):
            files = [each for each in map(_listed, siblings) if each and _is_path(each.name)]
            return commit, files
        case _:
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_REJECTED,
                f"GET {redact(url)} did not return the list of files of a repository: is it the "
                "API of a hub (model.download.hubEndpoint)?",
            )


def _with_hint(address: HubAddress, error: DownloadError) -> DownloadError:
    hint = ""
    if error.reason in {Reason.MODEL_NOT_FOUND, Reason.MODEL_FORBIDDEN}:
        hint = (
            f"; or the hub has no repository {address.repository} with the revision "
            f"{address.revision}"
        )
    return error.with_message(error.message + hint)


def _listed(sibling: Any) -> HubFile | None:
    """Return a file with its SHA-256, which the hub states of files in LFS."""
    match sibling:
        case {"rfilename": str(name), "lfs": {"sha256": str(sha256)}}:
            return HubFile(name, sha256 if re.fullmatch(_SHA256, sha256) else None)
        case {"rfilename": str(name)}:
            return HubFile(name, None)
        case _:
            return None


def _select(
    url: str, address: HubAddress, commit: str, listed: Sequence[HubFile]
) -> Sequence[HubFile]:
    """Return the files of the model, in their order."""
    by_name = {each.name: each for each in listed}
    where = f"{url}: at commit {commit[:12]}, repository {address.repository} has"
    if address.path is not None:
        names = [
            part_name(address.path, number) for number in range(1, part_count(address.path) + 1)
        ]
        missing = [name for name in names if name not in by_name]
        if missing:
            raise DownloadError(
                Reason.MODEL_NOT_FOUND, f"{where} no file {missing[0]}; {_models(listed)}"
            )
        return [by_name[name] for name in names]
    quantization = re.escape(address.quantization or "")
    pattern = rf"(.*[-._/])?{quantization}(-00001-of-[0-9]{{5}})?[.]gguf"
    found = [
        name
        for name in by_name
        if re.fullmatch(pattern, name, re.IGNORECASE) and not _is_projector(name)
    ]
    if len(found) != 1:
        several = f"several files of this quantization, name one in the URL: {_shown(found)}"
        none = f"no file of the quantization {shown(address.quantization or '')}; {_models(listed)}"
        reason = Reason.MODEL_AMBIGUOUS if found else Reason.MODEL_NOT_FOUND
        raise DownloadError(reason, f"{where} {several if found else none}")
    if part_count(found[0]) > 1:
        # The operator has to know the number of files, which is in llama-server's arguments.
        revision = f"@{address.revision}" if address.revision != "main" else ""
        named = f"hf://{address.repository}/{shown(found[0])}{revision}"
        raise DownloadError(
            Reason.MODEL_SPLIT, f"{where} a split model of this quantization: use {named}"
        )
    return [by_name[found[0]]]


def _is_projector(name: str) -> bool:
    return "mmproj" in name.lower()


def _models(listed: Sequence[HubFile]) -> str:
    models = [each.name for each in listed if each.name.endswith(".gguf")]
    return f"its GGUF files: {_shown(models)}" if models else "it has no GGUF file"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(map(shown, names[:_MAX_LISTED])) + more


def _require_expected(file: File, files: Sequence[HubFile]) -> None:
    """Notice another file before its gigabytes are downloaded."""
    for number, each in enumerate(files, 1):
        expected = file.sha256_of(number)
        if expected and each.sha256 and each.sha256 != expected:
            raise DownloadError(
                Reason.MODEL_CHECKSUM_MISMATCH,
                f"{file.url}: according to the hub {shown(each.name)} has the SHA-256 "
                f"{each.sha256}, expected {expected}",
            )
