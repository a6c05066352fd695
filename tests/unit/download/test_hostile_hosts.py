"""Whatever a host sends: the file is whole, or the error is clear, and comes in time."""

import gzip
import hashlib
import tracemalloc
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from download_harness import COMPLETE, DownloadHarness
from model_host import (
    GGUF,
    ModelHost,
    Reply,
    chunked,
    content,
    endless,
    model_host,
    other_range,
    redirect,
    status,
)
from ranged_model import RangedModel, large_model
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.deadline import in_time, send
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.ranges import SEGMENT_BYTES
from slotkeeper.download.sources.document import get_document
from slotkeeper.download.transfer import new_client

BODY = large_model(2 * SEGMENT_BYTES + 54_321)
SHA256 = hashlib.sha256(BODY).hexdigest()


def raw(*parts: bytes) -> Reply:
    """Respond with these bytes, and close the connection."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.wfile.write(b"".join(parts))

    return reply


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines, "")).encode()


def length(size: int) -> bytes:
    return head('ETag: "v1"', f"Content-Length: {size}")


MULTIPART = (
    b'HTTP/1.1 206 Partial Content\r\nETag: "v1"\r\nContent-Length: 60\r\n'
    b"Content-Type: multipart/byteranges; boundary=x\r\n\r\n" + b"--x\r\n" + bytes(55)
)
DIGITS = "9" * 5000
TRANSIENT: dict[str, Reply] = {
    "longer than announced": raw(length(len(BODY) - SEGMENT_BYTES), BODY),
    "shorter than announced": raw(length(len(BODY) + 1), BODY),
    "reset": raw(),
    "half of a header": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a header of 300 KB": raw(head("Content-Length: 9", f"X-Bomb: {'x' * 300_000}")),
    "ten thousand headers": raw(head("Content-Length: 9", *(f"X-{n}: {n}" for n in range(10_000)))),
    "two lengths": raw(head("Content-Length: 5", "Content-Length: 6"), b"GGUF12"),
    "a negative length": raw(head("Content-Length: -1"), BODY),
    "an invalid chunk": raw(head("Transfer-Encoding: chunked"), b"zz\r\nGGUF"),
    "half of a chunk": raw(head("Transfer-Encoding: chunked"), b"fffff\r\nGGUF"),
    "503": status(503),
    "429": status(429, **{"Retry-After": "3"}),
    "a year of 20 digits": status(
        503, **{"Retry-After": f"Mon, 01 Jan {DIGITS[:20]} 00:00:00 GMT"}
    ),
    "a year of 5000 digits": status(503, **{"Retry-After": f"Mon, 01 Jan {DIGITS} 00:00:00 GMT"}),
    "a length of 5000 digits": raw(head(f"Content-Length: {DIGITS}"), BODY),
}
PERMANENT: dict[str, tuple[Reply, Reason]] = {
    "gzip": (
        raw(head("Content-Encoding: gzip", "Content-Length: 99"), gzip.compress(BODY)[:99]),
        Reason.MODEL_DOWNLOAD_REJECTED,
    ),
    "a web page": (raw(head("Content-Length: 6"), b"<html>"), Reason.MODEL_NOT_GGUF),
    "nothing": (raw(head("Content-Length: 0")), Reason.MODEL_NOT_GGUF),
    "without a length": (endless(BODY), Reason.MODEL_SIZE_UNKNOWN),
    "a range that was not requested": (other_range(0, 99), Reason.MODEL_DOWNLOAD_REJECTED),
    "several ranges": (raw(MULTIPART), Reason.MODEL_DOWNLOAD_REJECTED),
    "a range of 5000 digits": (
        raw(f"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-{DIGITS}/{DIGITS}\r\n\r\n".encode()),
        Reason.MODEL_DOWNLOAD_REJECTED,
    ),
    "416": (status(416), Reason.MODEL_DOWNLOAD_REJECTED),
    "another file": (content(GGUF), Reason.MODEL_CHECKSUM_MISMATCH),
    "to a file": (redirect("file:///etc/passwd"), Reason.MODEL_URL_NOT_ALLOWED),
}


@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT)
def test_a_host_that_fails_is_tried_again(
    host: ModelHost, harness: DownloadHarness, reply: Reply
) -> None:
    host.respond_with(reply, reply, RangedModel(BODY))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY
    assert harness.files == COMPLETE


@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT)
def test_a_host_that_always_fails_ends_with_a_short_transient_error(
    host: ModelHost, harness: DownloadHarness, reply: Reply
) -> None:
    host.respond_with(reply)

    error = harness.download_error(host.url, SHA256)

    assert error.transient
    assert error.message.startswith(f"GET {host.url} ")
    assert len(error.message) < 400
    assert not harness.path.exists()


@pytest.mark.parametrize(("reply", "reason"), PERMANENT.values(), ids=PERMANENT)
def test_a_wrong_response_is_rejected_at_once(
    host: ModelHost, harness: DownloadHarness, reply: Reply, reason: Reason
) -> None:
    host.respond_with(reply)

    error = harness.download_error(host.url, SHA256)

    assert error.reason is reason
    assert len(host.requests) == 1
    assert not harness.path.exists()


@pytest.mark.parametrize(
    "url",
    ["https://[", "https://[::1]x/", "https://a.example.com:x/", "https://xn--a/", "//a/", ""],
)
def test_a_url_of_a_host_that_is_none_is_a_clear_error(client: httpx.Client, url: str) -> None:
    """Such as that of the server that issues a registry's tokens."""
    with pytest.raises(DownloadError) as caught:
        get_document(client, url, max_bytes=1)

    assert caught.value.reason is Reason.MODEL_URL_NOT_ALLOWED


def test_a_document_of_very_many_values_takes_little_memory(
    host: ModelHost, client: httpx.Client
) -> None:
    host.respond_with(content(b"[" + b"{}," * 1_300_000 + b"{}]"))

    tracemalloc.start()
    found = get_document(client, host.url, max_bytes=4 * 1024**2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.tree is None
    assert peak < 24 * 1024**2


def test_interim_responses_are_ignored(host: ModelHost, harness: DownloadHarness) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100
    host.respond_with(raw(interim, length(len(BODY)), BODY))

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == BODY


@pytest.mark.parametrize("flood", [b"HTTP/1.1 100 Continue\r\n\r\n", b""], ids=["1xx", "nothing"])
def test_a_response_that_does_not_begin_ends_in_time(
    host: ModelHost, client: httpx.Client, flood: bytes
) -> None:
    ended = Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        try:
            while not ended.wait(0.001):
                request.wfile.write(flood)
        except OSError:
            pass  # the client has closed the connection

    host.respond_with(reply)
    request = client.build_request("GET", host.url)
    try:
        with pytest.raises(httpx.ReadTimeout, match="no response in 0 s"):
            send(client, request, None, seconds=0.2)
    finally:
        ended.set()


def test_a_result_that_is_too_late_is_discarded() -> None:
    late, discarded = Event(), Event()

    def action() -> str:
        late.wait(10)
        return "late"

    with pytest.raises(httpx.ReadTimeout):
        in_time(action, discard=lambda _: discarded.set(), seconds=0.01)
    late.set()

    assert discarded.wait(10)


@pytest.mark.parametrize(
    ("code", "headers"),
    [(302, {"Location": "/model.gguf"}), (401, {"WWW-Authenticate": "Basic"})],
)
def test_the_body_of_a_response_that_is_not_the_last_is_not_kept(
    host: ModelHost, client: httpx.Client, code: int, headers: Mapping[str, str]
) -> None:
    zeros = gzip.compress(bytes(64 * 1024**2))
    sent: list[int] = []

    def bomb(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(64 * 1024**2))
        request.end_headers()
        request.wfile.write(zeros)
        with suppress(OSError):  # the client has closed the connection
            for _ in range(64):
                request.wfile.write(bytes(1024**2))
                sent.append(1024**2)

    host.respond_with(bomb, content(BODY))
    request = client.build_request("GET", host.url)

    tracemalloc.start()
    with closing(send(client, request, _Again())) as response:
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert response.status_code == 200
    assert peak < 4 * 1024**2
    assert sum(sent) < 32 * 1024**2


class _Again(httpx.Auth):
    """Repeats a request that was not accepted, as registries require."""

    @override
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        if response.status_code == 401:
            yield request


FAULTS: Sequence[Reply] = [
    *TRANSIENT.values(),
    *(reply for reply, _ in PERMANENT.values()),
    raw(length(len(BODY)), BODY[: 64 * 1024]),
    raw(length(len(BODY)), BODY[: SEGMENT_BYTES + 7]),
    chunked(BODY, finished=False),
    other_range(SEGMENT_BYTES, len(BODY), BODY[SEGMENT_BYTES:]),
]


@settings(deadline=None, max_examples=25)
@given(
    script=st.lists(st.one_of(st.none(), st.sampled_from(FAULTS)), min_size=1, max_size=12),
    cut=st.sampled_from([None, 64 * 1024, SEGMENT_BYTES // 2]),
    fast=st.sampled_from([None, 1.0]),
)
def test_any_sequence_of_faults_ends_with_the_file_or_a_clear_error(
    script: Sequence[Reply | None], cut: int | None, fast: float | None
) -> None:
    with model_host() as host, new_client() as client, TemporaryDirectory() as folder:
        harness = DownloadHarness(client, Path(folder, "models", "model.gguf"))
        harness.fast = fast
        replies = [reply or RangedModel(BODY, cut=cut) for reply in script]
        host.respond_with(*replies, RangedModel(BODY))

        # Each start of the container is one attempt.
        errors = [attempt(lambda: harness.download(host.url, SHA256)) for _ in range(len(script))]
        for error in filter(None, errors):
            assert error.message.startswith("GET ") or error.reason is Reason.MODEL_URL_NOT_ALLOWED
            assert len(error.message) < 400
        harness.download(host.url, SHA256)

        assert harness.path.read_bytes() == BODY
        assert harness.files == COMPLETE


def attempt(download: Callable[[], object]) -> DownloadError | None:
    try:
        download()
    except DownloadError as error:
        return error
    return None
