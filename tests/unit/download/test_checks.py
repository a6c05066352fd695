import errno
import hashlib
import io
from typing import BinaryIO, cast

import pytest
from typing_extensions import override

from download_world import RESUMABLE, World
from model_host import GGUF, OTHER, SHA256, ModelHost, chunked, content, endless
from slotkeeper.api.problem_reasons import Reason


def test_a_wrong_checksum_is_rejected_at_once_and_leaves_no_file(
    host: ModelHost, world: World
) -> None:
    host.answers(content(OTHER))

    error = world.fails(host.url, SHA256)

    assert error.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert host.url in error.message
    assert SHA256 in error.message
    assert hashlib.sha256(OTHER).hexdigest() in error.message
    assert world.left == set()
    assert len(host.asked) == 1


@pytest.mark.parametrize("body", [b"", b"GGU", b"<html>Please log in</html>", b"PK\x03\x04" * 9])
def test_a_file_that_is_not_gguf_is_rejected_and_leaves_no_file(
    host: ModelHost, world: World, body: bytes
) -> None:
    host.answers(content(body))

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_NOT_GGUF
    assert host.url in error.message
    assert world.left == set()


def test_a_file_that_is_not_gguf_is_rejected_at_its_first_bytes(
    host: ModelHost, world: World
) -> None:
    host.answers(content(b"<html>" + bytes(10_000), cut=6))

    assert world.fails(host.url).reason is Reason.MODEL_NOT_GGUF


def test_a_download_that_is_always_interrupted_is_never_complete(
    host: ModelHost, world: World
) -> None:
    host.answers(content(cut=99), content(cut=0))

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert f"broke off after 99 of {len(GGUF)} bytes" in error.message
    assert world.left == RESUMABLE


def test_a_chunked_response_is_complete_only_with_its_last_chunk(
    host: ModelHost, world: World
) -> None:
    host.answers(chunked(finished=False))
    assert world.fails(host.url).reason is Reason.MODEL_DOWNLOAD_INCOMPLETE

    host.answers(chunked())
    world.fetch(host.url)

    assert world.path.read_bytes() == GGUF


def test_a_response_without_an_end_marker_is_rejected(host: ModelHost, world: World) -> None:
    host.answers(endless())

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_SIZE_UNKNOWN
    assert not world.path.exists()


class FullDisk(io.BytesIO):
    """Takes nothing, as a volume does that is full."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    @override
    def write(self, _: object) -> int:
        raise OSError(self._code, "it said no")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.INSUFFICIENT_STORAGE),
        (errno.EDQUOT, Reason.INSUFFICIENT_STORAGE),
        (errno.EIO, Reason.STORAGE_ERROR),
    ],
)
def test_a_failed_write_is_reported_with_its_reason(
    host: ModelHost, world: World, code: int, reason: Reason
) -> None:
    host.answers(content())

    error = world.fails(host.url, opener=lambda _path, _mode: cast("BinaryIO", FullDisk(code)))

    assert error.reason is reason
    assert str(world.path) in error.message
    assert "it said no" in error.message
    assert not world.path.exists()
    assert len(host.asked) == 1
