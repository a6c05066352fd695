import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from download_harness import COMPLETE, DownloadHarness
from model_host import GGUF, OTHER, SHA256, ModelHost, content, status


def test_a_model_is_put_in_place_with_a_record(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content())

    record = harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == GGUF
    assert harness.files == COMPLETE
    assert (record.url, record.sha256, record.size) == (host.url, SHA256, len(GGUF))
    assert host.requests[0]["Accept-Encoding"] == "identity"


def test_a_complete_model_is_not_downloaded_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    first = harness.download(host.url)

    host.respond_with(status(404))

    assert harness.download(host.url) == first
    assert harness.download(host.url, SHA256) == first
    assert host.requests == []


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(GGUF[:-1]), id="shorter"),
        pytest.param(lambda path: _write_later(path, GGUF[:-1] + b"?"), id="another byte"),
        pytest.param(lambda path: path.unlink(), id="deleted"),
        pytest.param(lambda path: path.with_name("model.gguf.json").unlink(), id="no record"),
        pytest.param(
            lambda path: path.with_name("model.gguf.json").write_text("{}"), id="empty record"
        ),
    ],
)
def test_a_complete_model_that_fails_verification_is_downloaded_again(
    host: ModelHost, harness: DownloadHarness, damage: Callable[[Path], object]
) -> None:
    host.respond_with(content())
    harness.download(host.url, SHA256)
    damage(harness.path)

    harness.download(host.url, SHA256)

    assert len(host.requests) == 2
    assert harness.path.read_bytes() == GGUF


def test_a_complete_model_of_another_size_is_downloaded_again_even_without_a_checksum(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.download(host.url)
    harness.path.write_bytes(GGUF[:-1])

    harness.download(host.url)

    assert harness.path.read_bytes() == GGUF


def test_an_obsolete_model_is_removed_even_if_the_new_one_fails(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER), status(404))
    harness.download(host.url + "?1")

    harness.download_error(host.url + "?2")

    assert harness.files & COMPLETE == set()


def test_a_model_of_another_url_is_replaced(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content(OTHER), content())
    harness.download(host.url + "?1")

    harness.download(host.url + "?2")

    assert harness.path.read_bytes() == GGUF
    assert harness.files == COMPLETE


def test_a_modified_file_is_verified_again_once(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(content())
    first = harness.download(host.url, SHA256)
    _write_later(harness.path, GGUF)

    again = harness.download(host.url, SHA256)

    assert len(host.requests) == 1
    stat = harness.path.stat()
    assert again == replace(first, modified=stat.st_mtime_ns, changed=stat.st_ctime_ns)
    assert json.loads(harness.path.with_name("model.gguf.json").read_text()) == asdict(again)


def test_a_file_with_its_old_size_and_modification_time_is_verified_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.download(host.url, SHA256)
    stat = harness.path.stat()
    harness.path.write_bytes(GGUF[:-1] + b"!")
    os.utime(harness.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == GGUF
    assert len(host.requests) == 2


@pytest.mark.parametrize(("always", "content_is_read"), [(False, False), (True, True)])
def test_a_forged_record_is_believed_unless_files_are_always_verified(
    host: ModelHost, harness: DownloadHarness, always: bool, content_is_read: bool
) -> None:
    host.respond_with(content())
    record = harness.download(host.url, SHA256)
    harness.path.write_bytes(GGUF[:-1] + b"!")
    stat = harness.path.stat()
    forged = replace(record, modified=stat.st_mtime_ns, changed=stat.st_ctime_ns)
    harness.path.with_name("model.gguf.json").write_text(json.dumps(asdict(forged)))
    harness.always_verify = always

    harness.download(host.url, SHA256)

    assert (harness.path.read_bytes() == GGUF) is content_is_read


def test_a_record_of_an_earlier_version_causes_a_verification_but_no_download(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    record = harness.download(host.url, SHA256)
    old = {name: value for name, value in asdict(record).items() if name != "changed"}
    harness.path.with_name("model.gguf.json").write_text(json.dumps(old))

    assert harness.download(host.url, SHA256) == record
    assert len(host.requests) == 1


def test_a_file_without_a_checksum_that_was_written_since_is_downloaded_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.download(host.url)
    _write_later(harness.path, GGUF[:-1] + b"!")

    harness.download(host.url)

    assert harness.path.read_bytes() == GGUF


def test_the_same_content_from_another_url_is_not_downloaded_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content())
    harness.download(host.url + "?signature=1", SHA256)

    harness.download(host.url + "?signature=2", SHA256)

    assert len(host.requests) == 1


def _write_later(path: Path, text: bytes) -> None:
    """Overwrite a file, with a modification time one second later."""
    modified = path.stat().st_mtime_ns
    path.write_bytes(text)
    os.utime(path, ns=(modified, modified + 10**9))
