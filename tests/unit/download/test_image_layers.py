"""Files inside of the layers of container images, from Debian's docker-registry."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gguf_files import gguf, split_gguf
from model_host import ModelHost, content
from oci_registry import (
    Registry,
    descriptor,
    manifest,
    needs_registry,
)
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.storage import StorageLimits

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = f"{TAR}+gzip"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
BODY, OTHER = gguf({"a": 4096}), gguf({"b": 8})
PARTS = split_gguf({"a": 1}, {"b": 1})
SPLIT = [f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
LONG = f"models/{'long/' * 40}model.gguf"

Contents = Mapping[str, bytes | str | None]
"""Files by their paths: content, target of a symbolic link, or None for a folder."""


def tar(contents: Contents) -> bytes:
    """Return the layer that `COPY` makes of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, body in contents.items():
            info = tarfile.TarInfo(name)
            if isinstance(body, str):
                info.type, info.linkname = tarfile.SYMTYPE, body
            elif body is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(body)
            archive.addfile(info, io.BytesIO(body) if isinstance(body, bytes) else None)
    return buffer.getvalue()


def packed(contents: Contents) -> tuple[str, bytes, None]:
    """Return a compressed layer."""
    return GZIP, gzip.compress(tar(contents), 1), None


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    assert not file.path.exists()
    return caught.value


@needs_registry
@pytest.mark.parametrize("path", ["", "/models/a.gguf"])
@pytest.mark.parametrize(
    "layer",
    [
        (TAR, tar({"models": None, "models/a.gguf": BODY, "etc/b": OTHER}), None),
        (GZIP, gzip.compress(tar({"./models/a.gguf": BODY, "etc/b": OTHER})), None),
        (DOCKER_GZIP, gzip.compress(tar({"/models/a.gguf": BODY})), None),
        ("application/vnd.cncf.model.weight.v1.tar", tar({"models/a.gguf": BODY}), "a.gguf"),
    ],
    ids=["uncompressed", "gzip", "Docker", "ModelPack"],
)
def test_the_file_is_taken_out_of_its_layer(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layer: tuple[str, bytes, str | None],
    path: str,
) -> None:
    url = registry.push("image", packed({"bin/busybox": b"base"}), layer)
    sha256 = hashlib.sha256(BODY).hexdigest()

    record = download(File(f"{url}{path}", tmp_path / "m.gguf", sha256), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert (record.sha256, record.size) == (sha256, len(BODY))
    assert record.name == "models/a.gguf"
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"m.gguf", "m.gguf.json", "m.gguf.lock", "m.gguf.oci.json"}


@needs_registry
def test_a_file_that_is_there_is_not_downloaded_again(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    file = File(registry.push("moving", packed({"m.gguf": BODY})), tmp_path / "m.gguf")
    first = download(file, environment)
    registry.push("moving", packed({"m.gguf": OTHER}))

    environment.client.close()

    assert download(file, environment) == first


@needs_registry
def test_layers_without_the_file_are_not_downloaded_again(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("without", packed({"a": BODY}))
    file = File(url, tmp_path / "m.gguf")
    first = failure(file, environment)
    paths: list[str] = []
    hooks = environment.client.event_hooks
    environment.client.event_hooks = {
        **hooks,
        "request": [*hooks["request"], lambda request: paths.append(request.url.path)],
    }

    again = failure(file, environment)
    assert (again.reason, again.message) == (first.reason, first.message)
    assert {path.split("/")[-2] for path in paths} == {"manifests"}

    registry.push("without", packed({"m.gguf": BODY}))

    assert download(file, environment).size == len(BODY)


@needs_registry
def test_a_long_path_has_headers_of_its_own(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("long", packed({LONG: BODY}))

    download(File(f"{url}/{LONG}", tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY


@needs_registry
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"m/a.gguf": OTHER}, {"m/a.gguf": BODY}], BODY),
        ([{"m/a.gguf": BODY}, {"m/.wh.b.gguf": b""}], BODY),
        ([{"m/a.gguf": BODY}, {"m/.wh..wh..opq": b"", "m/c": b""}, {"m/a.gguf": OTHER}], OTHER),
        ([{"m/a.gguf": BODY}, {"m/.wh.a.gguf": b""}], None),
        ([{"m/a.gguf": BODY}, {"m/.wh..wh..opq": b""}], None),
        ([{"m/a.gguf": BODY}, {".wh.m": b""}], None),
        ([{"m/a.gguf": BODY}, {".wh..wh..opq": b""}], None),
        ([{"m/a.gguf": BODY, "m/.wh.a.gguf": b""}], BODY),
    ],
    ids=[
        "replaced",
        "another deleted",
        "deleted and added",
        "deleted",
        "its folder emptied",
        "its folder deleted",
        "all deleted",
        "deleted from lower layers",
    ],
)
@pytest.mark.parametrize("path", ["", "/m/a.gguf"])
def test_upper_layers_hide_lower_ones(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layers: list[Contents],
    expected: bytes | None,
    path: str,
) -> None:
    url = registry.push("layers", *map(packed, layers))
    file = File(f"{url}{path}", tmp_path / "m.gguf")

    if expected is None:
        assert failure(file, environment).reason is Reason.MODEL_NOT_FOUND
    else:
        download(file, environment)
        assert file.path.read_bytes() == expected


@needs_registry
@pytest.mark.parametrize(
    ("image", "reason", "message"),
    [
        (
            ([{"m/a.gguf": BODY, "m/b.gguf": OTHER}], ""),
            Reason.MODEL_AMBIGUOUS,
            (
                "has several GGUF files, of which the URL must name one: "
                "oci://HOST/team/model:bad/m/a.gguf, oci://HOST/team/model:bad/m/b.gguf"
            ),
        ),
        (
            ([dict(zip(SPLIT, PARTS, strict=True))], ""),
            Reason.MODEL_SPLIT,
            (
                "has a split model, whose first file the URL must name, such as "
                f"oci://HOST/team/model:bad/{SPLIT[0]}"
            ),
        ),
        (([{"a": b"a"}, {"b": b"b"}], ""), Reason.MODEL_NOT_FOUND, "no file whose name ends with"),
        (
            ([{"a.gguf": BODY}], "/b.gguf"),
            Reason.MODEL_NOT_FOUND,
            "has no file /b.gguf, in 1 layers",
        ),
        (
            ([{"a.gguf": "blobs/x"}], "/a.gguf"),
            Reason.MODEL_NOT_FOUND,
            "/a.gguf is a link to blobs/x: name the file itself",
        ),
        (
            ([{"d/a.gguf": BODY}, {"m": "d\n"}], "/m/a.gguf"),
            Reason.MODEL_NOT_FOUND,
            "/m is a link to d\\n: name the file itself",
        ),
        (([{"m": b""}], "/m/a.gguf"), Reason.MODEL_NOT_FOUND, "/m is not a folder"),
        (([{"m": None}], "/m"), Reason.MODEL_NOT_FOUND, "/m is not a regular file"),
        (([{"a.gguf": b"<html>"}], ""), Reason.MODEL_NOT_GGUF, "it is a web page"),
        (([{"a.gguf": BODY[:-1]}], ""), Reason.MODEL_DOWNLOAD_INCOMPLETE, "has only a part of it"),
        (([{"mmproj-a.gguf": BODY}], ""), Reason.MODEL_NOT_FOUND, "no file whose name ends with"),
        (([{"../../../etc/a": BODY}], "/etc/a"), Reason.MODEL_NOT_FOUND, "has no file /etc/a"),
    ],
)
def test_an_image_without_one_model_is_rejected(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    image: tuple[list[Contents], str],
    reason: Reason,
    message: str,
) -> None:
    layers, path = image
    url = registry.push("bad", *map(packed, layers))

    error = failure(File(f"{url}{path}", tmp_path / "m.gguf"), environment)

    assert error.reason is reason
    assert message in error.message.replace(registry.host, "HOST")


@needs_registry
def test_names_in_an_archive_are_no_paths_on_the_disk(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    folder = tmp_path / "a/b/models"
    url = registry.push("traversal", packed({"../../escaped.gguf": BODY}))

    download(File(url, folder / "m.gguf"), environment)

    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {each.parent for each in files} == {folder}


@needs_registry
def test_a_projector_is_another_file_of_the_image(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("vision", packed({"m/mmproj-a.gguf": OTHER, "m/a.gguf": BODY}))

    download(File(url, tmp_path / "m.gguf"), environment)
    download(File(url, tmp_path / "p.gguf", role="model.mmproj"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert (tmp_path / "p.gguf").read_bytes() == OTHER


@needs_registry
@pytest.mark.parametrize(
    "layers",
    [
        [{f"m/{name}": part for name, part in zip(SPLIT, PARTS, strict=True)}],
        [{f"m/{name}": part} for name, part in zip(SPLIT, PARTS, strict=True)],
    ],
    ids=["in one layer", "in two layers"],
)
def test_a_split_model_is_taken_out_of_its_layers(
    registry: Registry, environment: Environment, tmp_path: Path, layers: list[Contents]
) -> None:
    url = registry.push("split", *map(packed, layers))

    download(File(f"{url}/m/{SPLIT[0]}", tmp_path / SPLIT[0]), environment)

    assert [(tmp_path / name).read_bytes() for name in SPLIT] == PARTS


@needs_registry
@pytest.mark.parametrize("pinned", [False, True])
def test_an_image_for_several_platforms_has_the_same_model_on_all(
    registry: Registry, environment: Environment, tmp_path: Path, pinned: bool
) -> None:
    kind, body, _ = packed({"m.gguf": BODY})
    registry.push("s390x", (kind, body, None))
    other = manifest(descriptor(kind, body))
    platforms = [("unknown", "unknown"), ("linux", "s390x")]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **descriptor("application/vnd.oci.image.manifest.v1+json", other),
                "platform": {"os": os, "architecture": architecture},
            }
            for os, architecture in platforms
        ],
    }
    text = json.dumps(index).encode()
    url = registry.push_manifest("several", text)
    digest = f"@sha256:{hashlib.sha256(text).hexdigest()}" if pinned else ""

    download(File(f"{url}{digest}/m.gguf", tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY


@needs_registry
def test_a_wrong_sha256_is_noticed(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("v1", packed({"m.gguf": BODY}))

    error = failure(File(url, tmp_path / "m.gguf", "0" * 64), environment)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert list(tmp_path.glob("*.part*")) == []


@needs_registry
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ((f"{TAR}+zstd", b"zstd", None), "are compressed with zstd, which is not supported"),
        ((GZIP, b"no gzip", None), "is not a valid tar archive: gzip: "),
        ((GZIP, gzip.compress(tar({"m.gguf": BODY}))[:-9], None), "it ends early"),
        ((TAR, tar({"m.gguf": BODY})[: 512 + len(BODY) - 1], None), "it ends early"),
        ((TAR, b"x" * 512, None), "is not a valid tar archive"),
    ],
)
def test_a_malformed_layer_is_rejected(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    layer: tuple[str, bytes, None],
    message: str,
) -> None:
    error = failure(File(registry.push("bad", layer), tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_DOWNLOAD_REJECTED
    assert message in error.message


@needs_registry
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"m.gguf": BODY + bytes(1 << 20)}, "announces"),
        ({"m.gguf": BODY, "zeros": bytes(8 << 20)}, "has more content than"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_the_content_of_a_layer_is_limited(
    registry: Registry,
    environment: Environment,
    tmp_path: Path,
    contents: Contents,
    message: str,
    compressed: bool,
) -> None:
    limited = replace(environment, limits=StorageLimits(1 << 20))
    layer = packed(contents) if compressed else (TAR, tar(contents), None)

    error = failure(File(registry.push("bomb", layer), tmp_path / "m.gguf"), limited)

    assert error.reason is Reason.MODEL_TOO_LARGE
    assert message in error.message
    assert list(tmp_path.glob("*.part*")) == []


@needs_registry
def test_free_space_is_checked_for_the_file_alone(
    registry: Registry, environment: Environment, tmp_path: Path
) -> None:
    url = registry.push("large", packed({"other": bytes(100_000), "m.gguf": BODY}))
    free = StorageLimits(free_bytes=lambda _: len(BODY))
    full = StorageLimits(free_bytes=lambda _: len(BODY) - 1)

    error = failure(File(url, tmp_path / "m.gguf"), replace(environment, limits=full))
    download(File(url, tmp_path / "m.gguf"), replace(environment, limits=free))

    assert error.reason is Reason.INSUFFICIENT_STORAGE


def on_host(model_host: ModelHost, layer: bytes, **faults: int | bytes) -> str:
    """Return the URL of an image whose registry breaks each response."""
    served = faults.pop("served", layer)
    blob = content(served, **faults)  # type: ignore[arg-type]
    text = manifest(descriptor(GZIP, layer))
    model_host.respond_with(
        lambda request: content(text)(request) if "manifests" in request.path else blob(request)
    )
    host = model_host.url.removeprefix("https://").removesuffix("/model.gguf")
    return f"oci://{host}/team/model:v1"


def test_a_broken_transfer_continues_within_the_layer(
    tls_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    layer = gzip.compress(tar({"other": BODY, "m.gguf": BODY}), 0)
    url = on_host(tls_host, layer, cut=5000)

    download(File(url, tmp_path / "m.gguf"), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    starts = [request["Range"] for request in tls_host.requests[2:]]
    assert starts == [f"bytes={start}-" for start in range(5000, len(layer), 5000)]


def test_another_process_receives_the_layer_again(
    tls_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    layer = gzip.compress(tar({"m.gguf": BODY}), 0)
    once = replace(environment, retry=replace(environment.retry, tries=1))
    file = File(on_host(tls_host, layer, cut=5000), tmp_path / "m.gguf")
    with pytest.raises(DownloadError):
        download(file, replace(once, retry=replace(once.retry, tries=0)))
    assert (tmp_path / "m.gguf.part").stat().st_size > 0
    on_host(tls_host, layer)

    download(file, environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert tls_host.requests[-1]["Range"] is None


def test_another_layer_than_that_of_the_manifest_is_rejected(
    tls_host: ModelHost, environment: Environment, tmp_path: Path
) -> None:
    layer, other = (gzip.compress(tar({"m.gguf": body})) for body in (BODY, OTHER))
    url = on_host(tls_host, layer, served=other)

    error = failure(File(url, tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert list(tmp_path.glob("*.part*")) == []
