import json
from http.server import BaseHTTPRequestHandler

import pytest

from download_harness import COMPLETE, RESUMABLE, DownloadHarness
from model_host import GGUF, OTHER, SHA256, ModelHost, Reply, chunked, content, other_range, status

NEW_ETAG = '"v2"'


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 4096, len(GGUF) - 1])
def test_a_download_interrupted_anywhere_is_resumed_to_the_same_bytes(
    host: ModelHost, harness: DownloadHarness, cut: int
) -> None:
    host.respond_with(content(cut=cut), content())

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == GGUF
    assert host.requests[1]["Range"] == (f"bytes={cut}-" if cut else None)
    assert host.requests[1]["If-Range"] == ('"v1"' if cut else None)


@pytest.mark.parametrize("cut", [1, 4096, len(GGUF) - 1])
def test_a_later_start_resumes_an_earlier_one(
    host: ModelHost, harness: DownloadHarness, cut: int
) -> None:
    host.respond_with(content(cut=cut), status(404))
    harness.download_error(host.url)
    assert harness.files == RESUMABLE

    host.respond_with(content())
    harness.download(host.url, SHA256)

    assert host.requests[0]["Range"] == f"bytes={cut}-"
    assert harness.path.read_bytes() == GGUF
    assert harness.files == COMPLETE


def test_a_resume_by_last_modified_works_as_one_by_etag(
    host: ModelHost, harness: DownloadHarness
) -> None:
    date = "Sat, 01 Aug 2026 10:00:00 GMT"
    host.respond_with(content(etag=None, modified=date, cut=99), content(etag=None, modified=date))

    harness.download(host.url, SHA256)

    assert host.requests[1]["If-Range"] == date


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(content(etag=None, cut=99), id="no validator"),
        pytest.param(content(etag='W/"v1"', cut=99), id="weak etag"),
        pytest.param(content(etag='"\u00e9"', cut=99), id="an etag beyond ASCII"),
        pytest.param(content(etag=None, modified="\u00e9", cut=99), id="a time beyond ASCII"),
        pytest.param(chunked(GGUF[:99], finished=False), id="no length"),
    ],
)
def test_a_download_that_cannot_be_resumed_safely_restarts(
    host: ModelHost, harness: DownloadHarness, first: Reply
) -> None:
    host.respond_with(first, content())

    harness.download(host.url, SHA256)

    assert host.requests[1]["Range"] is None
    assert harness.path.read_bytes() == GGUF


@pytest.mark.parametrize(
    "second",
    [
        pytest.param([content(ranges=False)], id="200: no support for ranges"),
        pytest.param([content(GGUF, etag=NEW_ETAG)], id="200: the file changed"),
        pytest.param([other_range(7, len(GGUF)), content()], id="206 of another range"),
        pytest.param(
            [other_range(99, len(GGUF) + 1), content()], id="206 of a file of another length"
        ),
        pytest.param([status(416), content()], id="416"),
        pytest.param(
            [other_range(99, len(GGUF), GGUF[99:] + b"more"), content()], id="206 with more bytes"
        ),
    ],
)
def test_a_rejected_resume_restarts_from_the_first_byte(
    host: ModelHost, harness: DownloadHarness, second: list[Reply]
) -> None:
    host.respond_with(content(OTHER, cut=99), *second)

    harness.download(host.url)

    assert host.requests[1]["Range"] == "bytes=99-"
    assert harness.path.read_bytes() == GGUF


def test_bytes_of_another_version_never_mix_though_the_server_ignores_if_range(
    host: ModelHost, harness: DownloadHarness
) -> None:
    def ignores_if_range(request: BaseHTTPRequestHandler) -> None:
        del request.headers["If-Range"]
        content(GGUF, etag=NEW_ETAG)(request)

    same_length = b"GGUF" + bytes(len(GGUF) - 4)
    host.respond_with(content(same_length, cut=99), ignores_if_range, content(GGUF, etag=NEW_ETAG))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == GGUF


def test_a_file_that_became_shorter_keeps_nothing_of_the_longer_one(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(GGUF, cut=len(OTHER) + 99), content(OTHER, etag=NEW_ETAG))

    harness.download(host.url)

    assert harness.path.read_bytes() == OTHER


def test_a_record_never_outlives_the_bytes_that_it_describes(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER, cut=99), content(GGUF, etag=None, cut=50), status(404))
    harness.download_error(host.url)

    host.respond_with(content())
    harness.download(host.url, SHA256)

    assert host.requests[0]["Range"] is None


def test_a_partial_file_of_another_url_is_never_reused(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(OTHER, cut=99), status(404))
    harness.download_error(host.url + "?version=1")

    host.respond_with(content())
    harness.download(host.url + "?version=2", SHA256)

    assert host.requests[0]["Range"] is None
    assert harness.path.read_bytes() == GGUF


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"source": 1}'])
def test_a_partial_file_without_a_valid_record_is_never_reused(
    host: ModelHost, harness: DownloadHarness, record: str | None
) -> None:
    harness.path.parent.mkdir()
    harness.path.with_name("model.gguf.part").write_bytes(OTHER)
    if record is not None:
        harness.path.with_name("model.gguf.part.json").write_text(record)
    host.respond_with(content())

    harness.download(host.url)

    assert host.requests[0]["Range"] is None
    assert harness.path.read_bytes() == GGUF


@pytest.mark.parametrize("validator", ["", "\n", "a\r\nX: b", " a", '"\u00e9"'])
def test_a_validator_that_cannot_be_sent_is_not_read(
    host: ModelHost, harness: DownloadHarness, validator: str
) -> None:
    """Other pods may write to the volume."""
    host.respond_with(content(OTHER, cut=99), status(404))
    harness.download_error(host.url)
    path = harness.path.with_name("model.gguf.part.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "validator": validator}))

    host.respond_with(content())
    harness.download(host.url)

    assert [headers["Range"] for headers in host.requests] == [None]
    assert harness.path.read_bytes() == GGUF


def test_a_complete_partial_file_of_a_killed_process_needs_no_request(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(cut=len(GGUF) - 1), status(404))
    harness.download_error(host.url)
    with harness.path.with_name("model.gguf.part").open("ab") as part:
        part.write(GGUF[-1:])

    host.respond_with(status(404))
    harness.download(host.url, SHA256)

    assert host.requests == []
    assert harness.path.read_bytes() == GGUF


def test_a_range_shorter_than_announced_is_completed(
    host: ModelHost, harness: DownloadHarness
) -> None:
    short = other_range(99, len(GGUF), GGUF[99:200])
    host.respond_with(content(cut=99), short, content())

    harness.download(host.url, SHA256)

    assert host.requests[2]["Range"] == "bytes=200-"
