from http.server import BaseHTTPRequestHandler

import pytest

from download_world import FINISHED, RESUMABLE, World
from model_host import GGUF, OTHER, SHA256, ModelHost, Reply, chunked, content, other_range, status

ETAG_LATER = '"v2"'


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 4096, len(GGUF) - 1])
def test_a_download_interrupted_anywhere_is_resumed_to_the_same_bytes(
    host: ModelHost, world: World, cut: int
) -> None:
    host.answers(content(cut=cut), content())

    world.fetch(host.url, SHA256)

    assert world.path.read_bytes() == GGUF
    assert host.asked[1]["Range"] == (f"bytes={cut}-" if cut else None)
    assert host.asked[1]["If-Range"] == ('"v1"' if cut else None)


@pytest.mark.parametrize("cut", [1, 4096, len(GGUF) - 1])
def test_a_later_start_resumes_an_earlier_one(host: ModelHost, world: World, cut: int) -> None:
    host.answers(content(cut=cut), status(404))
    world.fails(host.url)
    assert world.left == RESUMABLE

    host.answers(content())
    world.fetch(host.url, SHA256)

    assert host.asked[0]["Range"] == f"bytes={cut}-"
    assert world.path.read_bytes() == GGUF
    assert world.left == FINISHED


def test_a_resume_by_last_modified_works_as_one_by_etag(host: ModelHost, world: World) -> None:
    date = "Sat, 01 Aug 2026 10:00:00 GMT"
    host.answers(content(etag=None, modified=date, cut=99), content(etag=None, modified=date))

    world.fetch(host.url, SHA256)

    assert host.asked[1]["If-Range"] == date


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(content(etag=None, cut=99), id="no validator"),
        pytest.param(content(etag='W/"v1"', cut=99), id="weak etag"),
        pytest.param(chunked(GGUF[:99], finished=False), id="no length"),
    ],
)
def test_a_download_that_cannot_be_resumed_safely_restarts(
    host: ModelHost, world: World, first: Reply
) -> None:
    host.answers(first, content())

    world.fetch(host.url, SHA256)

    assert host.asked[1]["Range"] is None
    assert world.path.read_bytes() == GGUF


@pytest.mark.parametrize(
    "second",
    [
        pytest.param([content(ranges=False)], id="the server knows no ranges: 200"),
        pytest.param([content(GGUF, etag=ETAG_LATER)], id="the file changed: 200"),
        pytest.param([other_range(7, len(GGUF)), content()], id="206 from elsewhere"),
        pytest.param([other_range(99, len(GGUF) + 1), content()], id="206 of another length"),
        pytest.param([status(416), content()], id="416"),
    ],
)
def test_a_rejected_resume_restarts_from_the_first_byte(
    host: ModelHost, world: World, second: list[Reply]
) -> None:
    host.answers(content(OTHER, cut=99), *second)

    world.fetch(host.url, SHA256)

    assert host.asked[1]["Range"] == "bytes=99-"
    assert world.path.read_bytes() == GGUF


def test_bytes_of_another_version_never_mix_though_the_server_ignores_if_range(
    host: ModelHost, world: World
) -> None:
    def ignores_if_range(request: BaseHTTPRequestHandler) -> None:
        del request.headers["If-Range"]
        content(GGUF, etag=ETAG_LATER)(request)

    same_length = b"GGUF" + bytes(len(GGUF) - 4)
    host.answers(content(same_length, cut=99), ignores_if_range, content(GGUF, etag=ETAG_LATER))

    world.fetch(host.url, SHA256)

    assert world.path.read_bytes() == GGUF


def test_a_file_that_became_shorter_keeps_nothing_of_the_longer_one(
    host: ModelHost, world: World
) -> None:
    host.answers(content(GGUF, cut=len(OTHER) + 99), content(OTHER, etag=ETAG_LATER))

    world.fetch(host.url)

    assert world.path.read_bytes() == OTHER


def test_a_record_never_outlives_the_bytes_that_it_describes(host: ModelHost, world: World) -> None:
    host.answers(content(OTHER, cut=99), content(GGUF, etag=None, cut=50), status(404))
    world.fails(host.url)

    host.answers(content())
    world.fetch(host.url, SHA256)

    assert host.asked[0]["Range"] is None


def test_a_partial_file_of_another_url_is_never_reused(host: ModelHost, world: World) -> None:
    host.answers(content(OTHER, cut=99), status(404))
    world.fails(host.url + "?version=1")

    host.answers(content())
    world.fetch(host.url + "?version=2", SHA256)

    assert host.asked[0]["Range"] is None
    assert world.path.read_bytes() == GGUF


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"source": 1}'])
def test_a_partial_file_without_a_valid_record_is_never_reused(
    host: ModelHost, world: World, record: str | None
) -> None:
    world.path.parent.mkdir()
    world.path.with_name("model.gguf.part").write_bytes(OTHER)
    if record is not None:
        world.path.with_name("model.gguf.part.json").write_text(record)
    host.answers(content())

    world.fetch(host.url)

    assert host.asked[0]["Range"] is None
    assert world.path.read_bytes() == GGUF


def test_a_complete_partial_file_of_a_killed_process_needs_no_request(
    host: ModelHost, world: World
) -> None:
    host.answers(content(cut=len(GGUF) - 1), status(404))
    world.fails(host.url)
    with world.path.with_name("model.gguf.part").open("ab") as part:
        part.write(GGUF[-1:])

    host.answers(status(404))
    world.fetch(host.url, SHA256)

    assert host.asked == []
    assert world.path.read_bytes() == GGUF


def test_a_range_shorter_than_announced_is_completed(host: ModelHost, world: World) -> None:
    short = other_range(99, len(GGUF), GGUF[99:200])
    host.answers(content(cut=99), short, content())

    world.fetch(host.url, SHA256)

    assert host.asked[2]["Range"] == "bytes=200-"
