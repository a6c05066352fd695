"""Parallel requests for the next segments of a file, whose bytes are returned in order.

A model host often limits each connection to a fraction of what the network can carry. Segments that
arrive early are kept in memory, so that the partial file is always a complete beginning of the
file: a process that is killed loses at most the segments in memory, and nothing needs a record.
"""

import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact
from slotkeeper.download.connection_speed import FAST_BYTES_PER_SECOND
from slotkeeper.download.deadline import send
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.minimum_speed import MinimumSpeed

SEGMENT_BYTES = 3 * 1024**2
CONNECTIONS = 4
BLOCK_BYTES = 512 * 1024
"""How many bytes a thread collects before it hands them over, which takes longer than to receive a
chunk from the network."""

JOIN_SECONDS = 1.0
"""How long an ended thread may take. One that is connecting takes longer, and then ends itself."""


@dataclass
class Connections:
    """How many connections a download uses at a time."""

    maximum: int = CONNECTIONS
    fast: float | None = FAST_BYTES_PER_SECOND
    """Bytes per second of one connection that need no others; None if others are always used."""

    def reduce(self) -> None:
        """Use half as many: the host has rejected one of several."""
        self.maximum = max(1, self.maximum // 2)


@dataclass(frozen=True)
class Source:
    """Where the segments come from."""

    client: httpx.Client
    first: httpx.Response
    """The response to the first request. Its URL is used for all, so that a host that redirects is
    asked once, and gets the credentials that were sent to this URL, if any."""
    auth: httpx.Auth | None
    """What authorizes requests to this URL instead of the headers of the first one."""
    clock: Callable[[], float]

    def send(self, headers: Mapping[str, str]) -> httpx.Response:
        """Send a request, and return the response without its body. Raises httpx.RequestError."""
        sent = self.first.request
        request = self.client.build_request("GET", sent.url, headers=headers)
        # httpx did not send the client's token to a host that it was redirected to.
        request.headers.pop("authorization", None)
        if "authorization" in sent.headers:
            request.headers["authorization"] = sent.headers["authorization"]
        return send(self.client, request, self.auth)


@dataclass(frozen=True)
class Version:
    """The version of the file that all segments are of."""

    validator: str
    """Value of If-Range."""
    require_range: Callable[[httpx.Response, int], None]
    """Raises DownloadError unless a response has its bytes from this position."""

    def headers(self, start: int, end: int) -> Mapping[str, str]:
        """Return those of a request for the bytes from `start` to before `end`."""
        # A compressed response has no ranges of the file.
        return {
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{end - 1}",
            "If-Range": self.validator,
        }


def in_order(
    source: Source, version: Version, start: int, total: int, connections: int
) -> Generator[memoryview, None, None]:
    """Yield the bytes from `start` to the end.

    A block is valid until the next but one is requested.
    Raises DownloadError or httpx.RequestError at the position of the failure, after all bytes
    before it.
    """
    starts = range(start, total, SEGMENT_BYTES)
    # One by one: of a terabyte there are so many that they would take much memory.
    segments = (_Segment(position, min(position + SEGMENT_BYTES, total)) for position in starts)
    fetcher = _Fetcher(source, version, segments)
    previous: _Segment | None = None
    try:
        fetcher.start(min(connections, len(starts)))
        for _ in starts:
            segment = fetcher.begun.get()
            while (block := segment.blocks.get()) is not None:
                if isinstance(block, Exception):
                    raise block
                yield block
                if previous:
                    # Its last block is not used any more.
                    fetcher.consumed(previous)
                    previous = None
            previous = segment
    finally:
        fetcher.stop()


class _Segment:
    """A range of the file, which one thread fills and another reads block by block."""

    def __init__(self, start: int, end: int) -> None:
        self.position = start
        """Of the next byte to receive."""
        self.end = end
        self.buffer = bytearray()
        """Set before the first byte."""
        self.blocks: SimpleQueue[memoryview | Exception | None] = SimpleQueue()
        """Parts of the buffer, then None, or an error."""
        self._start = start
        self._handed_over = start

    def append(self, chunk: bytes) -> None:
        """Add bytes. Raises DownloadError if they are more than the range."""
        if len(chunk) > self.end - self.position:
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_INCOMPLETE,
                f"the model host returned more bytes than the range up to {self.end - 1}",
            )
        offset = self.position - self._start
        self.buffer[offset : offset + len(chunk)] = chunk
        self.position += len(chunk)
        if self.position - self._handed_over >= BLOCK_BYTES:
            self._hand_over()

    def finish(self, error: Exception | None) -> None:
        """Hand over the last bytes, and how the range ended."""
        self._hand_over()
        self.blocks.put(error)

    def _hand_over(self) -> None:
        block = slice(self._handed_over - self._start, self.position - self._start)
        self._handed_over = self.position
        self.blocks.put(memoryview(self.buffer)[block])


class _Fetcher:
    """Threads that fetch segments, each the first one that no other has."""

    def __init__(self, source: Source, version: Version, segments: Iterator[_Segment]) -> None:
        self._source = source
        self._version = version
        self._pending = segments
        self.begun: SimpleQueue[_Segment] = SimpleQueue()
        """In the order of the file. Those after one that ends with an error may be missing."""
        # The same few buffers for all segments: memory that threads allocate and free for each
        # chunk of the network is fragmented, and takes twice as much.
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._lock = Lock()
        self._stopped = False
        self._responses: set[httpx.Response] = set()
        self._threads: list[Thread] = []

    def start(self, threads: int) -> None:
        """Begin to fetch."""
        # One more than threads, so that none waits while the last bytes of a segment are written
        # and hashed.
        for _ in range(threads + 1):
            self._free.put(bytearray(SEGMENT_BYTES))
        for _ in range(threads):
            # Daemons, so that the process can exit while one is connecting.
            self._threads.append(Thread(target=self._run, daemon=True))
            self._threads[-1].start()

    def consumed(self, segment: _Segment) -> None:
        """Use the memory of a segment for another."""
        self._free.put(segment.buffer)

    def stop(self) -> None:
        """End all requests and threads."""
        with self._lock:
            self._stopped = True
            responses = list(self._responses)
        for response in responses:
            _interrupt(response)
        for _ in self._threads:
            self._free.put(bytearray())
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while (segment := self._next()) is not None:
            try:
                self._fetch(segment)
            except Exception as error:
                segment.finish(error)
                return
            segment.finish(None)

    def _next(self) -> _Segment | None:
        # The buffer first: the segment that is consumed next always has one.
        buffer = self._free.get()
        with self._lock:
            segment = None if self._stopped else next(self._pending, None)
            if segment is not None:
                segment.buffer = buffer
                self.begun.put(segment)
        return segment

    def _fetch(self, segment: _Segment) -> None:
        """Fetch a segment, with several requests if responses end early."""
        fruitless = 0
        # Of responses that end early: each has a speed of its own, and may have one byte.
        speed = MinimumSpeed(self._source.clock)
        while segment.position < segment.end:
            before = segment.position
            try:
                self._receive(segment)
            except httpx.TransportError:
                fruitless = fruitless + 1 if segment.position == before else 0
                # The first: the host may have closed an idle connection just before the request.
                if fruitless > 1 or self._stopped:
                    raise
            else:
                if segment.position == before:
                    raise DownloadError(
                        Reason.MODEL_DOWNLOAD_INCOMPLETE,
                        f"GET {redact(str(self._source.first.request.url))} returned no bytes for "
                        f"the range from {before} to {segment.end - 1}",
                    )
            if segment.position < segment.end:
                speed.received(segment.position - before)

    def _receive(self, segment: _Segment) -> None:
        response = self._source.send(self._version.headers(segment.position, segment.end))
        try:
            with self._lock:
                self._responses.add(response)
            self._version.require_range(response, segment.position)
            speed = MinimumSpeed(self._source.clock)
            for chunk in response.iter_raw():
                if self._stopped:
                    raise httpx.ReadError("stopped")
                speed.received(len(chunk))
                segment.append(chunk)
        finally:
            with self._lock:
                self._responses.discard(response)
            response.close()


def _interrupt(response: httpx.Response) -> None:
    """Let the thread that reads a response return."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream else None
    if isinstance(connection, socket.socket):
        with suppress(OSError):
            # Not that of ssl.SSLSocket, which is not safe beside a read of another thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
