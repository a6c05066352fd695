"""Files of oci:// URLs: layers of artifacts in a container registry, and files in container images.

ORAS pushes a file as a layer with its name as title, ModelPack with its path, and Docker's models
have media types of their own. Such a layer is downloaded as any other file, and its digest is its
SHA-256. The layers of an image are archives, in which the file is searched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotkeeper.api.model_url import OciReference
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.split_model import ANY_PART, part_count, part_name
from slotkeeper.download.address import source_id
from slotkeeper.download.errors import DownloadError, shown
from slotkeeper.download.files import File, Image, Layer, RemoteFile
from slotkeeper.download.records import HubFile, HubRecord, write
from slotkeeper.download.sources.registry import (
    DIGEST,
    Registries,
    RegistryAuth,
    get_manifest,
)
from slotkeeper.llamacpp.gguf_split import Part

RECORD = ".oci.json"

_MODEL = "application/vnd.docker.ai.gguf.v3"
_PROJECTOR = "application/vnd.docker.ai.mmproj"
_MODEL_PACK = re.compile("application/vnd[.](cncf|cnai)[.]model[.]weight[.]v1[.](raw|gguf)")
_ARCHIVE = re.compile("application/vnd[.][-.a-z0-9]+[.](tar)(?:[.+](gzip|zstd))?")
_MODEL_PACK_ARCHIVE = re.compile("application/vnd[.](cncf|cnai)[.]model[.].*")
_NAMES = (
    "org.cncf.model.filepath",
    "org.cnai.model.filepath",
    "org.opencontainers.image.title",
)
"""Annotations with the name of a layer's file."""

_ARCHIVES = {"tar", "tar+gzip"}
_MAX_LISTED = 8
_MAX_LAYERS = 128
"""As of container runtimes."""

_SHA256 = re.compile("[0-9a-f]{64}")


def resolve(
    file: File, reference: OciReference, registries: Registries, record_path: Path
) -> Sequence[RemoteFile]:
    """Return the files to fetch.

    An earlier start of the same URL has recorded them; otherwise the manifest names them, and they
    are recorded.

    Raises DownloadError and OSError.
    """
    base = registries.repository_url(reference)
    auth = RegistryAuth(registries.client, registries.token)
    source = source_id(f"{file.role} {file.url}")
    record = HubRecord.read(record_path)
    if record is None or record.source != source or not _is_valid(record, part_count(file.url)):
        manifest = get_manifest(base, reference.reference, registries.client, auth)
        files = _select(file, reference, manifest)
        _require_expected(file, files)
        record = HubRecord(source, reference.reference, tuple(files))
        write(record_path, record)
    count = part_count(file.url)
    if record.files[0].archive:
        layers = tuple(
            Layer(f"{base}/blobs/sha256:{each.sha256}", each.sha256 or "", each.archive != "tar")
            for each in record.files
        )
        images = [
            Image(
                file.url,
                reference.url,
                layers,
                part_name(reference.path, number) if reference.path else None,
                is_projector=_is_projector_role(file),
            )
            for number in range(1, count + 1)
        ]
        return [
            RemoteFile(
                url=layers[0].url,
                path=file.path.with_name(part_name(file.path.name, number)),
                sha256=file.sha256_of(number),
                identity=image.identity,
                part=Part(number, count),
                auth=auth,
                image=image,
            )
            for number, image in enumerate(images, 1)
        ]
    return [
        RemoteFile(
            url=f"{base}/blobs/sha256:{each.sha256}",
            path=file.path.with_name(part_name(file.path.name, number)),
            sha256=each.sha256,
            identity=f"sha256:{each.sha256}",
            part=Part(number, count),
            auth=auth,
            # A layer of Docker's has no name.
            name="" if each.name == f"sha256:{each.sha256}" else each.name,
        )
        for number, each in enumerate(record.files, 1)
    ]


def _is_valid(record: HubRecord, count: int) -> bool:
    """Whether a record can be used: other pods may write to a volume that they share."""
    archives = [each.archive for each in record.files if each.archive is not None]
    whole = len(archives) == len(record.files) > 0 and _ARCHIVES.issuperset(archives)
    return (whole or (not archives and len(record.files) == count)) and all(
        _SHA256.fullmatch(each.sha256 or "") for each in record.files
    )


def _is_projector_role(file: File) -> bool:
    return file.role == "model.mmproj"


@dataclass(frozen=True)
class _Layer:
    """A layer of a manifest."""

    name: str
    """Of its file; empty if it has none."""
    sha256: str
    is_model: bool = False
    """Whether it is a GGUF file."""
    is_projector: bool = False
    archive: str | None = None


def _select(file: File, reference: OciReference, manifest: Any) -> Sequence[HubFile]:
    """Return the layers of a manifest that are the files of the model; or, if it has none, those in
    which to search for them, from the uppermost."""
    match manifest:
        case {"layers": [*trees]}:
            layers = [each for each in map(_layer, trees) if each]
        case _:
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_REJECTED,
                f"{file.url} has no manifest of an artifact or an image: is it a registry?",
            )
    models = [each for each in layers if each.is_model]
    archives = [each for each in layers if each.archive]
    selected = (
        _of_path(reference.path, models) if reference.path else _only(file, reference, models)
    )
    if selected:
        return [HubFile(each.name or f"sha256:{each.sha256}", each.sha256) for each in selected]
    if not archives or (models and reference.path is None):
        raise _not_found(file, reference, models, len(trees))
    if len(archives) > _MAX_LAYERS:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_REJECTED, f"{file.url} has more than {_MAX_LAYERS} layers"
        )
    zstd = [each for each in archives if each.archive not in _ARCHIVES]
    if zstd:
        raise DownloadError(
            Reason.MODEL_DOWNLOAD_REJECTED,
            f"{file.url} has layers that are compressed with zstd, which is not supported: push it "
            "with gzip, such as with `buildah push --compression-format gzip --force-compression`",
        )
    return [HubFile(each.name, each.sha256, each.archive) for each in reversed(archives)]


def _of_path(path: str, models: Sequence[_Layer]) -> Sequence[_Layer]:
    """Return the layers with the files of a model; empty if one is missing."""
    count = part_count(path)
    by_name = {each.name: each for each in reversed(models) if each.name}
    named = [by_name.get(part_name(path, number)) for number in range(1, count + 1)]
    if all(named):
        return [each for each in named if each]
    # Docker's layers of a split model have no names: their order counts, and the files' headers
    # show whether it is right.
    unnamed = [each for each in models if not each.name and not each.is_projector]
    return unnamed if count > 1 and len(unnamed) == count == len(models) else []


def _only(file: File, reference: OciReference, models: Sequence[_Layer]) -> Sequence[_Layer]:
    """Return the only model, or the only projector; empty if there is none."""
    projector = _is_projector_role(file)
    selected = [each for each in models if each.is_projector == projector]
    first = [each for each in selected if re.search(ANY_PART, each.name)]
    if first and len(first) == len(selected):
        name = min(each.name for each in first)
        raise DownloadError(
            Reason.MODEL_SPLIT,
            f"{file.url} has a split model, whose first file the URL must name, such as "
            f"{reference.url}/{shown(name)}",
        )
    if len(selected) > 1:
        names = ", ".join(shown(each.name or f"sha256:{each.sha256}") for each in selected[:8])
        raise DownloadError(
            Reason.MODEL_AMBIGUOUS,
            f"{file.url} has several layers with a {_what(file)}, of which the URL must name one, "
            f"such as {reference.url}/{shown(selected[0].name) or 'model.gguf'}: {names}",
        )
    return selected


def _not_found(
    file: File, reference: OciReference, models: Sequence[_Layer], count: int
) -> DownloadError:
    if reference.path is None:
        message = f"has no layer with a {_what(file)}, of {count} layers"
    else:
        names = ", ".join(shown(each.name) for each in models[:_MAX_LISTED] if each.name)
        message = f"has no such layer, but {names}" if names else "has no layer with this title"
    return DownloadError(Reason.MODEL_NOT_FOUND, f"{file.url} {message}")


def _what(file: File) -> str:
    return "projector" if _is_projector_role(file) else "GGUF file"


def _require_expected(file: File, files: Sequence[HubFile]) -> None:
    """Notice another file before its gigabytes are downloaded."""
    for number, each in enumerate(files, 1):
        if each.archive:
            return
        expected = file.sha256_of(number)
        if expected not in {None, each.sha256}:
            raise DownloadError(
                Reason.MODEL_CHECKSUM_MISMATCH,
                f"{file.url}: the layer {shown(each.name)} has the SHA-256 {each.sha256}, "
                f"expected {expected}",
            )


def _layer(tree: Any) -> _Layer | None:
    """Return a layer; None if it is neither a GGUF file nor an archive."""
    match tree:
        case {"mediaType": str(kind), "digest": str(digest), **others}:
            name = _name(others.get("annotations"))
        case _:
            return None
    matched = re.fullmatch(DIGEST, digest)
    if matched is None:
        return None
    archive = _ARCHIVE.fullmatch(kind)
    # ORAS gives files without a media type that of an archive.
    if archive and (not name.endswith(".gguf") or _MODEL_PACK_ARCHIVE.fullmatch(kind)):
        return _Layer(name, matched[1], archive="+".join(filter(None, archive.groups())))
    is_model = (
        kind in {_MODEL, _PROJECTOR}
        or name.endswith(".gguf")
        or bool(_MODEL_PACK.fullmatch(kind) and not name)
    )
    is_projector = kind == _PROJECTOR or (kind != _MODEL and "mmproj" in name.lower())
    return _Layer(name, matched[1], is_model, is_projector) if is_model else None


def _name(annotations: Any) -> str:
    if not isinstance(annotations, dict):
        return ""
    names = [annotations.get(each) for each in _NAMES]
    return next((name for name in names if isinstance(name, str) and name), "")
