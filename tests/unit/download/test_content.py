"""A part of a file, or of a split model, is noticed from its header."""

import pytest

from download_harness import COMPLETE, REJECTED, DownloadHarness
from gguf_files import gguf
from model_host import ModelHost, chunked, content
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import source_id
from slotkeeper.download.checks import fits_header
from slotkeeper.download.download import RetryPolicy
from slotkeeper.download.records import FileRecord, write
from slotkeeper.llamacpp.gguf_split import Part

WHOLE = gguf(tensors={"a": 1024, "b": 2048})
HALF = WHOLE[: len(WHOLE) // 2]


@pytest.mark.parametrize("half", [content(HALF), chunked(HALF)])
def test_a_host_with_half_of_a_file_is_asked_again(
    host: ModelHost, harness: DownloadHarness, half: object
) -> None:
    host.respond_with(half, content(WHOLE))  # type: ignore[arg-type]  # parametrized

    record = harness.download(host.url)

    assert harness.path.read_bytes() == WHOLE
    assert record.size == len(WHOLE)
    assert len(host.requests) == 2


def test_half_of_a_file_is_never_put_in_place(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content(HALF))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert error.message == (
        f"GET {host.url} returned a file of {len(HALF)} bytes, but according to its GGUF header it "
        f"has at least {len(WHOLE)}: the host has only a part of it"
    )
    assert not harness.files & COMPLETE
    # No byte of it is used again.
    assert not any("Range" in headers for headers in host.requests)


@pytest.mark.parametrize(
    "vocabulary", [pytest.param(0, id="a short header"), pytest.param(200_000, id="a long header")]
)
def test_half_of_a_large_file_is_noticed_at_its_header(
    host: ModelHost, harness: DownloadHarness, vocabulary: int
) -> None:
    # The rest never arrives: without the header, it would be an interrupted download.
    large = gguf({"a": 1_000_000}, tokens=["token"] * vocabulary)
    host.respond_with(content(large[:-1], cut=4 * 64 * 1024 + vocabulary * 32))

    error = harness.download_error(host.url)

    assert f"has at least {len(large)}" in error.message
    assert len(host.requests) == RetryPolicy().tries


def test_half_of_a_file_that_an_earlier_version_put_in_place_is_downloaded_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(WHOLE))
    harness.path.parent.mkdir()
    harness.path.write_bytes(HALF)
    record = FileRecord(host.url, source_id(host.url), "0" * 64, len(HALF), 0)
    write(harness.path.with_name("model.gguf.json"), record)

    harness.download(host.url)

    assert harness.path.read_bytes() == WHOLE
    assert fits_header(harness.path, Part())


def test_a_part_of_a_split_model_is_rejected_at_once(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(gguf(tensors={"a": 1024}, split_count=3)))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_SPLIT
    assert error.message == (
        f"GET {host.url} returned a file that is one of 3 files of a split model: use the URL of "
        "the first one, whose name must end with -00001-of-00003.gguf"
    )
    assert harness.files == REJECTED
    assert len(host.requests) == 1


def test_a_split_model_in_a_single_file_is_a_model(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(gguf(tensors={"a": 1024}, split_count=1)))

    harness.download(host.url)

    assert harness.files == COMPLETE
