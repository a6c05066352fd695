"""A model host cannot write more to the disk than the limit."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from download_harness import COMPLETE, DownloadHarness
from model_host import GGUF, SHA256, ModelHost, chunked, content
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.storage import StorageLimits, free_bytes

MIB = 1024**2


class EndlessHost:
    """Responds with a model in chunks, which ends only with the connection."""

    def __init__(self) -> None:
        self.sent = 0

    def reply(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.close_connection = True
        try:
            for chunk in self._chunks():
                request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.sent += len(chunk)
        except OSError:
            pass  # the client has closed the connection

    def _chunks(self) -> Iterator[bytes]:
        yield GGUF
        while True:
            yield bytes(64 * 1024)


def test_an_endless_response_ends_at_the_limit_and_leaves_no_file(
    host: ModelHost, harness: DownloadHarness
) -> None:
    endless = EndlessHost()
    host.respond_with(endless.reply)
    harness.limits = StorageLimits(max_bytes=MIB)

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_TOO_LARGE
    assert error.message == (
        f"GET {host.url} returns more than the 1Mi of model.download.maxFileSize"
    )
    assert harness.files == set()
    assert len(host.requests) == 1
    # The rest was on its way, in the buffers of the connection.
    assert endless.sent < 16 * MIB


def test_a_file_that_is_announced_to_be_too_large_is_not_downloaded(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.limits = StorageLimits(max_bytes=len(GGUF) - 1)

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_TOO_LARGE
    assert f"announces {len(GGUF)} bytes, more than the {len(GGUF) - 1} bytes" in error.message
    assert harness.files == set()


@pytest.mark.parametrize("reply", [content(), chunked()])
def test_a_file_of_exactly_the_limit_is_downloaded(
    host: ModelHost, harness: DownloadHarness, reply: object
) -> None:
    host.respond_with(reply)  # type: ignore[arg-type]  # parametrized
    harness.limits = StorageLimits(max_bytes=len(GGUF))

    harness.download(host.url, SHA256)

    assert harness.files == COMPLETE


def test_a_file_that_does_not_fit_on_the_disk_is_rejected_before_its_bytes(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.limits = StorageLimits(free_bytes=lambda _: 5000)

    error = harness.download_error(host.url)

    assert error.reason is Reason.INSUFFICIENT_STORAGE
    assert f"{len(GGUF)} bytes more are needed, 5000 bytes are free" in error.message
    assert harness.path.with_name("model.gguf.part").stat().st_size == 0


def test_only_the_missing_bytes_of_an_interrupted_download_need_room(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(cut=6000), content())
    free = iter([len(GGUF), len(GGUF) - 6000])
    harness.limits = StorageLimits(free_bytes=lambda _: next(free))

    harness.download(host.url, SHA256)

    assert harness.files == COMPLETE


def test_the_free_bytes_are_those_of_the_file_system(harness: DownloadHarness) -> None:
    assert free_bytes(harness.path.parent.parent) > 0
