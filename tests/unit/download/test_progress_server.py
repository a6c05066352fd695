"""The progress over HTTP, and clients that try to occupy the thread that serves it."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Self

import pytest

from model_host import ModelHost, content
from ranged_model import RangedModel, large_model
from slotkeeper.download.lock import file_lock
from slotkeeper.download.progress_server import (
    MAX_CONNECTIONS,
    MAX_REQUEST,
    REQUEST_SECONDS,
    serve_progress,
)
from slotkeeper.reconcile.downloads.report import ProgressReport

REPORT: Mapping[str, object] = {"phase": "Downloading", "downloadedBytes": 7}
HOST = "127.0.0.1"


@pytest.fixture
def port() -> Iterator[int]:
    with serve_progress(0, lambda: REPORT, time.monotonic, time.sleep, HOST) as port:
        assert port is not None
        yield port


def get(port: int, path: str = "/progress", method: str = "GET") -> tuple[int, object]:
    connection = HTTPConnection(HOST, port, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, body


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=10)


def is_closed(client: socket.socket) -> bool:
    """Whether the server closes the connection, within the socket's timeout."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_the_progress_is_served_as_json(port: int) -> None:
    assert get(port) == (200, REPORT)
    assert get(port, "/progress?pretty") == (200, REPORT)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/progress/", 404),
        ("GET", "/../progress", 404),
        ("POST", "/progress", 405),
        ("DELETE", "/progress", 405),
    ],
)
def test_nothing_else_is_served(port: int, method: str, path: str, status: int) -> None:
    assert get(port, path, method)[0] == status


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"\r\n\r\n", id="empty"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", id="TLS"),
        pytest.param(b"GET\r\n\r\n", id="no path"),
    ],
)
def test_what_is_no_http_gets_404(port: int, request_: bytes) -> None:
    with connect(port) as client:
        client.sendall(request_)
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")


def test_a_request_without_an_end_is_closed_at_its_limit(port: int) -> None:
    with connect(port) as client:
        with suppress(ConnectionError):
            client.sendall(b"GET /progress HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST)
        assert is_closed(client)

    assert get(port) == (200, REPORT)


def test_a_request_that_arrives_byte_by_byte_is_closed_at_its_deadline(port: int) -> None:
    started = time.monotonic()
    with connect(port) as client:
        client.settimeout(0.05)
        sent = 0
        with suppress(ConnectionError):
            while time.monotonic() - started < 3 * REQUEST_SECONDS:
                client.sendall(b"G")
                sent += 1
                with suppress(TimeoutError):
                    if client.recv(1) == b"":
                        break

    assert sent < MAX_REQUEST
    assert time.monotonic() - started < 2 * REQUEST_SECONDS


def test_connections_that_send_nothing_are_displaced(port: int) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(3 * MAX_CONNECTIONS)]

        assert get(port) == (200, REPORT)
        assert is_closed(idle[0])


def test_clients_that_reset_or_read_nothing_do_no_harm(port: int) -> None:
    for _ in range(20):
        with connect(port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(b"GET /progress HTTP/1.1\r\n\r\n" * 3)

    assert get(port) == (200, REPORT)


def test_a_flood_costs_little_cpu_and_memory() -> None:
    """A second of as many connections as a client can open."""
    script = """
import resource, sys, time
from slotkeeper.download.progress_server import serve_progress
with serve_progress(0, dict, time.monotonic, time.sleep, "127.0.0.1") as port:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(port, flush=True)
    sys.stdin.readline()
    after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime)
print(after.ru_maxrss - usage.ru_maxrss)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        port = int(process.stdout.readline())
        ends = time.monotonic() + 1
        clients = []
        while time.monotonic() < ends:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((HOST, port))
            clients.append(client)
            if len(clients) > 500:
                clients.pop(0).close()
        for client in clients:
            client.close()
        process.stdin.write("\n")
        process.stdin.flush()
        cpu_seconds, memory_kb = map(float, process.stdout.read().split())

    assert cpu_seconds < 0.2
    assert memory_kb < 4096


def test_a_port_that_is_in_use_is_no_reason_not_to_download(
    host: ModelHost, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with serve_progress(port, lambda: REPORT, time.monotonic, time.sleep, HOST) as served:
            assert served is None
        assert f"the progress is not served on port {port}" in caplog.text

        host.respond_with(content())
        with Download(host, path, port) as download:
            assert download.process.wait(30) == 0


def test_an_error_of_the_report_ends_the_thread_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Mapping[str, object]:
        raise RuntimeError("a defect")

    with (
        serve_progress(0, fail, time.monotonic, time.sleep, HOST) as port,
        connect(port or 0) as client,
    ):
        client.sendall(b"GET /progress HTTP/1.1\r\n\r\n")
        assert is_closed(client)

    assert "a defect" in caplog.text


class Download:
    """A download process that serves its progress."""

    def __init__(self, host: ModelHost, path: Path, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slotkeeper", "download"),
                *("--model", host.url, "--to", str(path), "--progress-port", str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)

    def wait_for(self, phase: str) -> dict[str, object]:
        """Poll until this phase is reported."""
        for _ in range(600):
            with suppress(OSError):
                report = get(self.port)[1]
                assert isinstance(report, dict)
                if report["phase"] == phase:
                    return report
            time.sleep(0.02)
        raise AssertionError(f"never {phase}")


def unused_port() -> int:
    with socket.create_server((HOST, 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


class HalfSent:
    """A model whose second half is sent only when the test allows it."""

    def __init__(self) -> None:
        self.body = large_model(16 * 1024**2)
        self.allowed = Event()
        self._sent = 0
        self.host = RangedModel(self.body, sent=self._on_sent)

    def _on_sent(self, size: int) -> None:
        self._sent += size
        if self._sent > len(self.body) // 2:
            self.allowed.wait(30)


def test_a_download_process_reports_its_progress_from_start_to_end(
    host: ModelHost, path: Path
) -> None:
    model = HalfSent()
    host.respond_with(model.host)
    path.parent.mkdir()
    with Download(host, path, unused_port()) as download:
        time.sleep(1.5)
        report = download.wait_for("Downloading")
        polled = ProgressReport.parse(json.dumps(report).encode())
        model.allowed.set()

        assert polled.total_bytes == len(model.body)
        assert 0 < polled.downloaded_bytes < len(model.body)
        assert report["file"] == "model.gguf"
        assert download.process.wait(30) == 0


def test_a_download_that_waits_for_another_pod_says_so(host: ModelHost, path: Path) -> None:
    host.respond_with(content())
    path.parent.mkdir()
    with Download(host, path, unused_port()) as download:
        with file_lock(path.with_name("model.gguf.lock")):
            waiting = download.wait_for("Waiting")
        assert download.process.wait(30) == 0

    assert waiting["downloadedBytes"] == 0


def test_clients_of_the_progress_neither_delay_nor_break_the_download(
    host: ModelHost, path: Path
) -> None:
    host.respond_with(RangedModel(large_model(16 * 1024**2)))
    port = unused_port()
    clients = []
    with Download(host, path, port) as download:
        while download.process.poll() is None:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((HOST, port))
            with suppress(OSError):
                client.send(b"GET /progress HTTP/1.1\r\n" * 50)
            clients.append(client)
            if len(clients) > 200:
                clients.pop(0).close()
        for client in clients:
            client.close()

        assert download.process.returncode == 0
