import errno
import hashlib
import io
from typing import BinaryIO, cast

import pytest
from typing_extensions import override

from download_harness import REJECTED, RESUMABLE, DownloadHarness
from model_host import GGUF, OTHER, SHA256, ModelHost, chunked, content, endless
from slotkeeper.api.problem_reasons import Reason


def test_a_wrong_checksum_is_rejected_at_once_and_leaves_no_file(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER))

    error = harness.download_error(host.url, SHA256)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert host.url in error.message
    assert SHA256 in error.message
    assert hashlib.sha256(OTHER).hexdigest() in error.message
    assert harness.files == REJECTED
    assert len(host.requests) == 1


@pytest.mark.parametrize("body", [b"", b"GGU", b"<html>Please log in</html>", b"PK\x03\x04" * 9])
def test_a_file_that_is_not_gguf_is_rejected_and_leaves_no_file(
    host: ModelHost, harness: DownloadHarness, body: bytes
) -> None:
    host.respond_with(content(body))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_NOT_GGUF
    assert host.url in error.message
    assert harness.files == REJECTED


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (b"", "not GGUF: it is empty"),
        (
            b"<!DOCTYPE html>",
            "it is a web page; use the download URL, for Hugging Face with /resolve/ in it",
        ),
        (b"GGU", "it begins with 'GGU'"),
        (b"PK\x03\x04", "it begins with the bytes 50 4b 03 04"),
    ],
)
def test_a_file_that_is_not_gguf_is_described(
    host: ModelHost, harness: DownloadHarness, body: bytes, end: str
) -> None:
    host.respond_with(content(body))

    assert harness.download_error(host.url).message.endswith(end)


def test_a_file_that_is_not_gguf_is_rejected_at_its_first_bytes(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(b"<html>" + bytes(10_000), cut=6))

    assert harness.download_error(host.url).reason is Reason.MODEL_NOT_GGUF


def test_a_download_that_is_always_interrupted_is_never_complete(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(cut=99), content(cut=0))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert f"was interrupted after 99 of {len(GGUF)} bytes" in error.message
    assert harness.files == RESUMABLE


def test_a_chunked_response_is_complete_only_with_its_last_chunk(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(chunked(finished=False))
    assert harness.download_error(host.url).reason is Reason.MODEL_DOWNLOAD_INCOMPLETE

    host.respond_with(chunked())
    harness.download(host.url)

    assert harness.path.read_bytes() == GGUF


def test_a_response_without_an_end_marker_is_rejected(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(endless())

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_SIZE_UNKNOWN
    assert not harness.path.exists()


class FullDisk(io.BytesIO):
    """Rejects every write, like a full volume."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    @override
    def write(self, _: object) -> int:
        raise OSError(self._code, "no space")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.INSUFFICIENT_STORAGE),
        (errno.EDQUOT, Reason.INSUFFICIENT_STORAGE),
        (errno.EIO, Reason.STORAGE_ERROR),
    ],
)
def test_a_failed_write_is_reported_with_its_reason(
    host: ModelHost, harness: DownloadHarness, code: int, reason: Reason
) -> None:
    host.respond_with(content())

    error = harness.download_error(
        host.url, opener=lambda _path, _mode: cast("BinaryIO", FullDisk(code))
    )

    assert error.reason is reason
    assert str(harness.path) in error.message
    assert "no space" in error.message
    assert not harness.path.exists()
    assert len(host.requests) == 1
