"""Ranges of a large file are fetched by several connections, and are always of one version."""

import hashlib
import tracemalloc
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from itertools import count, pairwise
from pathlib import Path
from threading import Event, Thread, active_count

import httpx
import pytest
from typing_extensions import override

from download_harness import COMPLETE, DownloadHarness
from model_host import ModelHost, Reply, other_range, redirect, status
from ranged_model import Fault, RangedModel, faults, large_model
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.body import BLOCK_BYTES
from slotkeeper.download.download import RetryPolicy
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.ranges import CONNECTIONS, SEGMENT_BYTES, Source, Version, in_order

BODY = large_model(7 * SEGMENT_BYTES + 12_345)
SHA256 = hashlib.sha256(BODY).hexdigest()
SMALLER = large_model(4 * SEGMENT_BYTES, seed=2)


def test_a_large_file_is_fetched_once_in_segments(
    host: ModelHost, harness: DownloadHarness
) -> None:
    model = RangedModel(BODY)
    host.respond_with(model)

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    # The first segment is read from the first response, to the end of a block.
    first, *segments = sorted(model.ranges)
    assert first == (0, len(BODY))
    assert SEGMENT_BYTES <= segments[0][0] <= SEGMENT_BYTES + BLOCK_BYTES
    assert all(end - start <= SEGMENT_BYTES for start, end in segments)
    assert segments[-1][1] == len(BODY)
    assert all(before[1] == after[0] for before, after in pairwise(segments))


def test_a_fast_connection_needs_no_others(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(RangedModel(BODY))
    harness.fast = 1.0

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert len(host.requests) == 1


def test_others_continue_when_a_fast_connection_becomes_slow(
    host: ModelHost, harness: DownloadHarness
) -> None:
    model = RangedModel(BODY)
    host.respond_with(model)
    reads = count()
    # Time passes once several blocks have been read.
    harness.clock = lambda: float(max(0, next(reads) - 60))
    harness.fast = 1e9

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert len(host.requests) > 1


def test_a_fast_connection_that_breaks_is_continued_without_back_off(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(RangedModel(BODY, cut=2 * SEGMENT_BYTES))
    harness.fast = 1.0

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert harness.delays == []


def test_a_small_file_and_a_host_without_ranges_get_one_request(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(RangedModel(large_model(SEGMENT_BYTES)))
    harness.download(host.url)
    assert len(host.requests) == 1

    def without_ranges(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("ETag", '"v1"')
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        request.wfile.write(BODY)

    host.respond_with(without_ranges)
    harness.download(host.url, SHA256)
    assert len(host.requests) == 1


def test_a_host_that_cuts_all_responses_at_64_kb_serves_the_file_without_back_off(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(RangedModel(BODY, cut=64 * 1024))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert harness.delays == []


@pytest.mark.parametrize("etag", ['"v2"', 'W/"v2"'])
def test_a_file_that_changes_during_the_download_is_downloaded_again(
    host: ModelHost, harness: DownloadHarness, etag: str
) -> None:
    model = RangedModel(BODY)
    host.respond_with(model)

    def change(number: int, _request: BaseHTTPRequestHandler) -> None:
        if number == 3:
            model.body, model.etag = SMALLER, etag

    model.fault = change
    harness.download(host.url)

    assert harness.path.read_bytes() == SMALLER


def test_a_host_that_rejects_more_connections_gets_fewer(
    host: ModelHost, harness: DownloadHarness
) -> None:
    def busy(_number: int, request: BaseHTTPRequestHandler) -> Reply | None:
        # The first request of each try has no end of its range.
        several = not request.headers.get("Range", "bytes=0-").endswith("-")
        return status(429, **{"Retry-After": "7"}) if several else None

    host.respond_with(RangedModel(BODY, fault=busy))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert harness.delays
    assert all(7 < delay < 40 for delay in harness.delays)
    assert len(harness.delays) <= 3


def test_a_redirected_host_is_asked_once_and_gets_no_credentials(
    host: ModelHost, harness: DownloadHarness
) -> None:
    elsewhere = host.url.replace("127.0.0.1", "localhost").replace("model", "elsewhere")
    model = RangedModel(BODY)

    def reply(request: BaseHTTPRequestHandler) -> None:
        (model if "elsewhere" in request.path else redirect(elsewhere))(request)

    host.respond_with(reply)
    harness.download(host.url.replace("//", "//user:SECRET@"), SHA256)

    authorized = [bool(headers["Authorization"]) for headers in host.requests]
    assert authorized[0]
    assert len(authorized) > CONNECTIONS
    assert not any(authorized[1:])


def test_a_redirect_that_expires_is_followed_again(
    host: ModelHost, harness: DownloadHarness
) -> None:
    signed = "/elsewhere.gguf?signature="
    issued: list[str] = []
    model = RangedModel(BODY)

    def reply(request: BaseHTTPRequestHandler) -> None:
        if "elsewhere" not in request.path:
            issued.append(f"{signed}{len(issued)}")
            redirect(issued[-1])(request)
        elif request.path == f"{signed}0" and len(model.ranges) >= 4:
            status(403)(request)
        else:
            model(request)

    host.respond_with(reply)
    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert len(issued) == 2


def beginning_as_range(request: BaseHTTPRequestHandler) -> None:
    start, end = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
    other_range(start, len(BODY), BODY[: end + 1 - start], code=200)(request)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(other_range(0, len(BODY), BODY[:999]), id="another range"),
        pytest.param(other_range(SEGMENT_BYTES, len(BODY) + 1), id="another length"),
        pytest.param(
            other_range(SEGMENT_BYTES, len(BODY), BODY[SEGMENT_BYTES:]),
            id="more bytes than requested",
        ),
        pytest.param(status(206), id="no range"),
        pytest.param(status(200), id="200 without the file"),
        pytest.param(beginning_as_range, id="200 with the range, and the beginning of the file"),
        pytest.param(status(404), id="404"),
    ],
)
def test_a_wrong_reply_to_a_range_is_tried_again(
    host: ModelHost, harness: DownloadHarness, wrong: Reply
) -> None:
    fault: Fault = lambda number, _request: wrong if number == 2 else None  # noqa: E731
    host.respond_with(RangedModel(BODY, fault=fault))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY


def attempt(harness: DownloadHarness, url: str) -> DownloadError | None:
    try:
        harness.download(url, SHA256)
    except DownloadError as error:
        return error
    return None


def closed(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


@pytest.mark.parametrize("seed", range(8))
def test_random_faults_end_with_the_file_or_with_a_transient_error(
    host: ModelHost, harness: DownloadHarness, seed: int
) -> None:
    kinds = (
        status(429, **{"Retry-After": "3"}),
        status(503),
        status(416),
        other_range(0, len(BODY)),
        other_range(2 * SEGMENT_BYTES, len(BODY), BODY[2 * SEGMENT_BYTES :][:70_000]),
        closed,
    )
    threads = active_count()
    fault = faults(seed, kinds, share=0.3)
    host.respond_with(RangedModel(BODY, cut=[None, 2_000_000][seed % 2], fault=fault))
    harness.fast = [None, 1.0][seed % 4 // 2]

    for _ in range(20):
        error = attempt(harness, host.url)
        if error is None:
            break
        assert error.transient
    assert harness.path.read_bytes() == BODY
    assert harness.files == COMPLETE
    # The host's own thread for each connection ends with it.
    assert active_count() <= threads + 2 * CONNECTIONS


def test_a_host_that_sends_almost_nothing_is_given_up(path: Path) -> None:
    seconds = 0.0
    requests = 0

    class Dribble(httpx.SyncByteStream):
        @override
        def __iter__(self) -> Iterator[bytes]:
            nonlocal seconds
            yield b"GGUF"
            while True:
                seconds += 29
                yield b"."

    def reply(request: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"ETag": '"v1"', "Content-Length": str(len(BODY) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        return httpx.Response(206 if start else 200, headers=headers, stream=Dribble())

    with httpx.Client(transport=httpx.MockTransport(reply)) as client:
        harness = DownloadHarness(client, path)
        harness.clock = lambda: seconds
        error = harness.download_error("http://127.0.0.1/model.gguf")

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert "sent only" in error.message
    assert requests == RetryPolicy().tries


def test_a_byte_for_each_range_is_no_progress_for_long(path: Path) -> None:
    seconds = 0.0
    requests = 0

    class Broken(httpx.SyncByteStream):
        """The bytes from a position on, until the connection breaks."""

        def __init__(self, start: int) -> None:
            self.start = start

        @override
        def __iter__(self) -> Iterator[bytes]:
            nonlocal seconds
            seconds += 7
            yield BODY[self.start : self.start + 1] if self.start else BODY[:100_000]
            raise httpx.ReadError("reset")

    def reply(request: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        start = int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": '"v1"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        headers["Content-Length"] = str(len(BODY) - start)
        return httpx.Response(206 if start else 200, headers=headers, stream=Broken(start))

    with httpx.Client(transport=httpx.MockTransport(reply)) as client:
        harness = DownloadHarness(client, path)
        harness.clock = lambda: seconds
        error = harness.download_error("http://127.0.0.1/model.gguf")

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert "sent only" in error.message
    assert requests < 40 * RetryPolicy().tries


class Signature(httpx.Auth):
    @override
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = "signed"
        yield request


@pytest.mark.parametrize(
    ("sent", "auth", "expected"),
    [
        pytest.param({}, None, None, id="redirected to another host"),
        pytest.param({"Authorization": "Bearer TOKEN"}, None, "Bearer TOKEN", id="token"),
        pytest.param({"Authorization": "old"}, Signature(), "signed", id="signed anew"),
    ],
)
def test_segments_have_the_credentials_of_the_first_request(
    sent: dict[str, str], auth: httpx.Auth | None, expected: str | None
) -> None:
    requests: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(206)

    first = httpx.Response(200, request=httpx.Request("GET", "https://cdn.test/f", headers=sent))
    token = {"Authorization": "Bearer TOKEN"}
    with httpx.Client(headers=token, transport=httpx.MockTransport(reply)) as client:
        Source(client, first, auth, lambda: 0.0).send({"Range": "bytes=10-19"}).close()

    assert requests[0].headers.get("Authorization") == expected
    assert str(requests[0].url) == "https://cdn.test/f"
    assert requests[0].headers["Range"] == "bytes=10-19"


def test_the_number_of_segments_takes_no_memory(host: ModelHost, client: httpx.Client) -> None:
    """A host may announce any size, and cookies with each range."""
    size = 2**40
    cookies = [f"c{n}={'x' * 3000}; Path=/" for n in range(5)]
    numbers = count()
    many = Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        if len(host.requests) > 50:
            many.set()
        request.send_response(206)
        for cookie in cookies:
            request.send_header("Set-Cookie", f"{next(numbers)}{cookie}")
        request.send_header("Content-Length", "1")
        request.end_headers()
        request.wfile.write(b"x")

    host.respond_with(reply)
    request = client.build_request("GET", host.url, headers={"Range": "bytes=0-"})
    with closing(client.send(request, stream=True)) as first:
        seconds = [0.0]
        source = Source(client, first, None, lambda: seconds[0])
        version = Version('"v1"', lambda _response, _start: None)
        tracemalloc.start()
        received = in_order(source, version, 0, size, 1)

        def receive() -> None:
            with suppress(DownloadError):
                next(received, None)

        # It returns when many more responses than these have been received.
        thread = Thread(target=receive, daemon=True)
        thread.start()
        assert many.wait(30)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # So few bytes in a minute end it. It would keep a connection, and so the host, otherwise.
        seconds[0] = 61.0
        thread.join(30)
        assert not thread.is_alive()

    assert peak < 2 * SEGMENT_BYTES + 4 * 1024**2
    assert all("Cookie" not in request for request in host.requests)
