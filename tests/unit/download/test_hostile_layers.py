"""Layers that would take very much memory or time are rejected early."""

import gzip
import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download import layers, tar_stream
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import Image, Layer
from slotkeeper.download.layers import Deleted, LayerFile, Search
from slotkeeper.download.storage import StorageLimits
from slotkeeper.download.tar_stream import MAX_NAME, Entry

MEBIBYTE = 1024**2
EMPTY_MEMBER = gzip.compress(b"")


def tar(names: Iterable[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def layer_file(folder: Path, body: bytes, limits: StorageLimits | None = None) -> LayerFile:
    layer = Layer("https://r.example.com/blob", hashlib.sha256(body).hexdigest(), gzip=True)
    image = Image("oci://r.example.com/a:1/m.gguf", "oci://r.example.com/a:1", (layer,), "m.gguf")
    search = Search(image, Deleted(), limits or StorageLimits())
    return LayerFile(folder / "model.gguf.part", layer, search)


def receive(part: LayerFile, body: bytes) -> None:
    for start in range(0, len(body), MEBIBYTE):
        part.append(body[start : start + MEBIBYTE])


def rejection(folder: Path, body: bytes, limits: StorageLimits | None = None) -> DownloadError:
    """Receive a layer in blocks, and return the error. Little memory is used until then."""
    tracemalloc.start()
    try:
        with layer_file(folder, body, limits) as part, pytest.raises(DownloadError) as caught:
            receive(part, body)
        assert tracemalloc.get_traced_memory()[1] < 24 * MEBIBYTE
    finally:
        tracemalloc.stop()
    return caught.value


def test_a_path_of_very_many_folders(tmp_path: Path) -> None:
    error = rejection(tmp_path, gzip.compress(tar(["a/" * 40_000])))

    assert error.reason is Reason.MODEL_DOWNLOAD_REJECTED
    assert "a name of 79999 characters" in error.message


def test_very_many_deleted_paths(tmp_path: Path) -> None:
    names = (f".wh.{number}{'x' * (MAX_NAME - 20)}" for number in range(4000))

    error = rejection(tmp_path, gzip.compress(tar(names), 1))

    assert "delete too many files" in error.message


def test_very_many_deleted_paths_of_several_layers() -> None:
    deleted, last = Deleted(), Deleted()
    for number in range(10):
        last = Deleted()
        for file in range(190):
            name = f".wh.{number}-{file}-{'x' * MAX_NAME}"
            last.add(Entry(name, 0, is_file=True, is_folder=False, link=None))
        deleted.update(last)
    for file in range(200):
        last.add(Entry(f".wh.{file}{'x' * MAX_NAME}", 0, is_file=True, is_folder=False, link=None))

    with pytest.raises(DownloadError, match="delete too many files"):
        deleted.update(last)


def test_headers_of_extensions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_HEADERS", 100)
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
        for _ in range(101):
            archive.addfile(info, io.BytesIO(b"x"))

    assert "more than 100 headers" in rejection(tmp_path, gzip.compress(buffer.getvalue())).message


def test_bytes_that_are_decompressed_to_none_count(tmp_path: Path) -> None:
    body = EMPTY_MEMBER * (4 * MEBIBYTE // len(EMPTY_MEMBER))

    error = rejection(tmp_path, body, StorageLimits(max_bytes=2 * MEBIBYTE))

    assert error.reason is Reason.MODEL_TOO_LARGE


def test_the_rest_of_a_block_is_not_copied_for_each_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    real = layers._gzip

    class Counting:
        def __init__(self) -> None:
            self._zlib = real()

        def decompress(self, data: memoryview, size: int) -> bytes:
            copied.append(len(data))
            return self._zlib.decompress(data, size)

        def __getattr__(self, name: str) -> object:
            return getattr(self._zlib, name)

    monkeypatch.setattr(layers, "_gzip", Counting)
    members = EMPTY_MEMBER * (MEBIBYTE // len(EMPTY_MEMBER)) + gzip.compress(tar(["x"]))
    with layer_file(tmp_path, members) as part:
        part.append(members)
        part.finish()

    assert sum(copied) < 1000 * len(members)
