"""Serves the progress over HTTP, in one thread that no client can make busy.

Nothing here may delay or end the download: a round of the loop handles at most one request of each
connection, connections are few and short, and after each round the thread sleeps.
"""

import json
import logging
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

from slotkeeper.api.download_progress import PATH
from slotkeeper.error_text import describe
from slotkeeper.wire.sockets import available

MAX_CONNECTIONS = 8
"""A further connection displaces the oldest one."""

MAX_REQUEST = 2048
"""Bytes of a request with its headers."""

REQUEST_SECONDS = 2.0
"""How long a client may take to send its request."""

BACKLOG = 32
"""Connections that the kernel keeps until they are accepted, within a third of a second."""

PAUSE_SECONDS = 0.01
"""After each round. At most a hundred connections per second are accepted, which takes less than a
hundredth of the CPU."""

JOIN_SECONDS = 2.0

log = logging.getLogger(__name__)


@contextmanager
def serve_progress(
    port: int,
    report: Callable[[], Mapping[str, object]],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    host: str = "::",
) -> Iterator[int | None]:
    """Serve what `report` returns as long as the context lasts.

    Yields the port; None if it cannot be served, which is no reason not to download.
    """
    try:
        server = _Server(_listen(host, port), report, clock, sleep)
    except OSError as error:
        log.warning("the progress is not served on port %d: %s", port, describe(error))
        yield None
        return
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.stop()
        thread.join(JOIN_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    host = available(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
    )


@dataclass(eq=False)
class _Client:
    """A connection without a complete request."""

    sock: socket.socket
    deadline: float
    request: bytearray = field(default_factory=bytearray)


class _Server:
    """The thread's loop, and what ends it."""

    def __init__(
        self,
        listener: socket.socket,
        report: Callable[[], Mapping[str, object]],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._report = report
        self._clock = clock
        self._sleep = sleep
        self._clients: list[_Client] = []
        """The oldest first."""
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._stopping = socket.socketpair()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until stopped. Errors end this thread only."""
        try:
            while self._serve_round():
                self._sleep(PAUSE_SECONDS)
        except Exception:
            log.exception("the progress is not served any more")
        finally:
            for client in [*self._clients]:
                self._close(client)
            self._selector.close()
            self._listener.close()
            self._wakeup.close()

    def stop(self) -> None:
        """End the loop."""
        self._stopping.close()

    def _serve_round(self) -> bool:
        """Wait for clients and serve them; whether to continue."""
        timeout = None
        if self._clients:
            timeout = max(0.0, self._clients[0].deadline - self._clock())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakeup:
                return False
            if key.fileobj is self._listener:
                self._accept()
            elif key.data in self._clients:
                self._read(key.data)
        while self._clients and self._clients[0].deadline <= self._clock():
            self._close(self._clients[0])
        return True

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # The client is gone, or the process has too many files open.
            return
        sock.setblocking(False)
        if len(self._clients) >= MAX_CONNECTIONS:
            self._close(self._clients[0])
        client = _Client(sock, self._clock() + REQUEST_SECONDS)
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _read(self, client: _Client) -> None:
        try:
            received = client.sock.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.request += received
        complete = b"\r\n\r\n" in client.request
        if received and not complete and len(client.request) < MAX_REQUEST:
            return
        if complete:
            with suppress(OSError):
                # It fits into the socket's empty buffer, or the client has closed it.
                client.sock.send(self._response(bytes(client.request)))
        self._close(client)

    def _response(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != PATH.encode():
            return _encoded("404 Not Found", {"error": "not found"})
        if method != b"GET":
            return _encoded("405 Method Not Allowed", {"error": "only GET is allowed"})
        return _encoded("200 OK", self._report())

    def _close(self, client: _Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.sock)
        client.sock.close()


def _encoded(status: str, content: Mapping[str, object]) -> bytes:
    body = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
