"""A version of a file that was rejected is not downloaded again."""

import json
import os
import time
from pathlib import Path

import pytest

from download_harness import COMPLETE, REJECTED, DownloadHarness
from model_host import GGUF, OTHER, SHA256, ModelHost, content, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.rejections import KEPT_SECONDS

RECORD = "model.gguf.rejected.json"


@pytest.mark.parametrize(
    ("etag", "modified"), [('"v1"', None), (None, "Mon, 05 Oct 2026 07:28:00 GMT")]
)
def test_the_next_start_ends_with_the_same_error_before_the_first_byte(
    host: ModelHost, harness: DownloadHarness, etag: str | None, modified: str | None
) -> None:
    host.respond_with(content(OTHER, etag=etag, modified=modified))
    first = harness.download_error(host.url, SHA256)

    host.respond_with(content(OTHER, etag=etag, modified=modified, cut=0))
    second = harness.download_error(host.url, SHA256)

    assert first.reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert (second.reason, second.message) == (first.reason, first.message)
    assert len(host.requests) == 1
    assert harness.delays == []
    assert harness.files == REJECTED


@pytest.mark.parametrize("age", [KEPT_SECONDS, -60])
def test_a_rejected_version_is_downloaded_once_more_after_an_hour(
    host: ModelHost, harness: DownloadHarness, age: float
) -> None:
    # Its bytes were changed on the way.
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)
    then = time.time() - age
    os.utime(harness.path.with_name(RECORD), (then, then))

    host.respond_with(content())

    assert harness.download(host.url, SHA256).sha256 == SHA256
    assert harness.files == COMPLETE


def test_another_version_is_downloaded(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)

    host.respond_with(content(etag='"v2"'))

    assert harness.download(host.url, SHA256).sha256 == SHA256
    assert harness.files == COMPLETE


def test_the_same_version_of_another_size_is_downloaded(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)

    host.respond_with(content())

    assert harness.download(host.url, SHA256).sha256 == SHA256


def test_another_checksum_in_the_spec_downloads_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.download_error(host.url, "0" * 64)

    assert harness.download(host.url, SHA256).size == len(GGUF)
    assert harness.files == COMPLETE


def test_another_url_in_the_spec_downloads_again(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)

    host.respond_with(content())

    assert harness.download(host.url.replace("model.gguf", "b.gguf"), SHA256).size == len(GGUF)


def test_a_file_without_a_version_is_downloaded_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER, etag=None))
    harness.download_error(host.url, SHA256)
    assert harness.files == set()

    assert harness.download_error(host.url, SHA256).reason is Reason.MODEL_CHECKSUM_MISMATCH


def test_an_error_of_the_host_is_reported_instead(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)

    host.respond_with(status(404))

    assert harness.download_error(host.url, SHA256).reason is Reason.MODEL_NOT_FOUND


def test_an_error_of_the_host_is_not_remembered(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content(cut=99), status(404))
    harness.download_error(host.url)

    host.respond_with(content())

    assert harness.download(host.url).size == len(GGUF)


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "{}", pytest.param({"reason": "ModelTooLarge"}, id="not of the content")],
)
def test_an_invalid_record_is_ignored(
    host: ModelHost, harness: DownloadHarness, record: str | dict[str, str]
) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)
    path = _record(harness)
    text = (
        record
        if isinstance(record, str)
        else json.dumps({**json.loads(path.read_text()), **record})
    )
    path.write_text(text)

    assert harness.download_error(host.url, SHA256).reason is Reason.MODEL_CHECKSUM_MISMATCH
    assert json.loads(path.read_text())["reason"] == "ModelChecksumMismatch"


def test_a_long_message_of_another_pod_is_limited(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER))
    harness.download_error(host.url, SHA256)
    path = _record(harness)
    path.write_text(json.dumps({**json.loads(path.read_text()), "message": "a\x1b[2J\n" * 9999}))

    message = harness.download_error(host.url, SHA256).message

    assert len(message) <= 4096
    assert message.isprintable()


def _record(harness: DownloadHarness) -> Path:
    return harness.path.with_name(RECORD)
