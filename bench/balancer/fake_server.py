"""Fast fake llama-servers with slots, deferred requests, /slots, /health and streams.

All replicas run in this one process, so that the starts of requests have one order and one clock:
CLOCK_MONOTONIC in nanoseconds, which the load generator also uses.
"""

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import cast

from typing_extensions import override

from bench.balancer.jobs import HEADER, Job, header_in, job_in, job_in_body
from bench.balancer.worker import run

_HEAD = (
    b"HTTP/1.1 %s\r\nServer: llama.cpp\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
MARK = b"@"
"""Precedes the time at which a token was sent, which always has 19 digits."""
# The time is in the text: gateways that parse events drop fields of others.
_FIELDS = (
    b'"created":1790000000,"id":"chatcmpl-0123456789abcdefghijklmnopqrstuv","model":"fake",'
    b'"system_fingerprint":"b0000","object":"chat.completion%s"'
)
_EVENT = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"@%019d"}}],'
    + _FIELDS % b".chunk"
    + b"}\n\n"
)
_CHUNK = b"%x\r\n%s\r\n" % (len(_EVENT % 0), _EVENT)
_TIMINGS = b'"timings":{"cache_n":7,"prompt_n":11,"predicted_n":%d}'
_LAST_EVENTS = (
    b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],'
    + _FIELDS % b".chunk"
    + b","
    + _TIMINGS
    + b"}\n\ndata: [DONE]\n\n"
)
_COMPLETION = (
    b'{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant",'
    b'"content":"hello"}}],'
    + _FIELDS % b""
    + b',"usage":{"completion_tokens":1,"prompt_tokens":18,"total_tokens":19},'
    + _TIMINGS % 1
    + b"}"
)
_MAX_JOB = 512
"""Bytes at the end of a body that are searched for a job."""
_LOADING = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Properties of a fake replica.

    `step_us`: length of a decode step. After a client disconnect the slot stays busy to its end.
    `cache`: number of prompts in the LRU prompt cache; a miss costs `miss_us` more on the slot.
    0: no cache, and no extra cost.
    """

    slots: int
    step_us: int = 10_000
    cache: int = 0
    miss_us: int = 0


@dataclass(slots=True)
class Counters:
    """Events at all replicas since the last reset."""

    overcommitted: int = 0
    """Requests that arrived at a replica without a free slot."""
    max_concurrent: int = 0
    started: int = 0
    released: list[int] = field(default_factory=list)
    """When slots were released after a client disconnect, in nanoseconds."""


class Replica:
    """One llama-server: at most `slots` requests run, the others are deferred."""

    def __init__(self, options: ReplicaOptions, counters: Counters) -> None:
        self.options = options
        self.counters = counters
        self.loading = False
        self.busy = 0
        self._deferred: deque[RunningRequest] = deque()
        self._prompts: OrderedDict[int, None] = OrderedDict()

    def accept(self, request: "RunningRequest") -> None:
        """Start the request, or defer it if no slot is free."""
        if self.busy < self.options.slots:
            self._start(request)
        else:
            self.counters.overcommitted += 1
            self._deferred.append(request)

    def release_slot(self) -> None:
        """Release a slot and start a deferred request."""
        self.busy -= 1
        if self._deferred:
            self._start(self._deferred.popleft())

    def abort(self, request: "RunningRequest") -> None:
        """Abort a request whose client has disconnected."""
        if request in self._deferred:
            self._deferred.remove(request)
        elif request.start:
            step = self.options.step_us * 1000
            remaining = step - (time.monotonic_ns() - request.start) % step
            asyncio.get_running_loop().call_later(remaining / 1e9, self._release_aborted)

    def slots(self) -> bytes:
        """Return the body of /slots."""
        slots = [
            {"id": number, "n_ctx": 4096, "is_processing": number < self.busy}
            for number in range(self.options.slots)
        ]
        return json.dumps(slots).encode()

    def clear_cache(self) -> None:
        """Empty the prompt cache."""
        self._prompts.clear()

    def _release_aborted(self) -> None:
        self.counters.released.append(time.monotonic_ns())
        self.release_slot()

    def _start(self, request: "RunningRequest") -> None:
        self.busy += 1
        self.counters.started += 1
        self.counters.max_concurrent = max(self.counters.max_concurrent, self.busy)
        request.begin(self._look_up(request.job.session))

    def _look_up(self, session: int) -> bool:
        if session < 0 or not self.options.cache:
            return True
        hit = session in self._prompts
        self._prompts[session] = None
        self._prompts.move_to_end(session)
        if len(self._prompts) > self.options.cache:
            self._prompts.popitem(last=False)
        return hit


class RunningRequest:
    """A request at a replica, from its arrival to its end."""

    __slots__ = ("_chat", "_hit", "_remaining", "_replica", "_timer", "_transport", "job", "start")

    def __init__(
        self, job: Job, replica: Replica, transport: asyncio.Transport, *, chat: bool
    ) -> None:
        self.job = job
        self._chat = chat
        self.start = 0
        """When it started on a slot, in nanoseconds; 0 before."""
        self._replica = replica
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._remaining = job.tokens
        self._hit = True

    def begin(self, hit: bool) -> None:
        """Start on a slot; `hit`: whether its prompt is in the cache."""
        self.start = time.monotonic_ns()
        self._hit = hit
        service = self.job.service_us + (0 if hit else self._replica.options.miss_us)
        self._call_after(service, self._send_first_token if self.job.tokens else self._send_json)

    def disconnect(self) -> None:
        """The client has disconnected."""
        if self._timer:
            self._timer.cancel()
        self._replica.abort(self)

    def completed(self) -> bool:
        """Whether the response is complete."""
        return self._remaining < 0

    def _call_after(self, delay_us: int, callback: Callable[[], None]) -> None:
        if delay_us:
            self._timer = asyncio.get_running_loop().call_later(delay_us / 1e6, callback)
        else:
            callback()

    def _send_json(self) -> None:
        self._remaining = -1
        self._replica.release_slot()
        if self._chat:
            body = _COMPLETION
        else:
            report = {"start": self.start, "end": time.monotonic_ns(), "hit": self._hit}
            body = json.dumps(report).encode()
        self._transport.write(_HEAD % (b"200 OK", len(body)) + body)

    def _send_first_token(self) -> None:
        self._transport.write(_STREAM + _CHUNK % time.monotonic_ns())
        self._schedule_next()

    def _send_token(self) -> None:
        self._transport.write(_CHUNK % time.monotonic_ns())
        self._schedule_next()

    def _schedule_next(self) -> None:
        self._remaining -= 1
        if self._remaining:
            self._call_after(self.job.interval_us, self._send_token)
        else:
            self._remaining = -1
            self._replica.release_slot()
            last = _LAST_EVENTS % self.job.tokens if self._chat else b""
            self._transport.write(_framed(last) + b"0\r\n\r\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


class Connection(asyncio.Protocol):
    """One connection to a replica, with one request after the other."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._buffer = b""
        self._body = 0
        self._head = b""
        self._end = b""
        self._running: RunningRequest | None = None
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._running and not self._running.completed():
            self._running.disconnect()

    @override
    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. Bodies are counted; only their ends are stored."""
        if not self._head:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._buffer = data
                return
            self._buffer = self._end = b""
            self._head = data[:end].lower()
            self._body = int(header_in(self._head, b"content-length") or 0) + end
        self._body -= len(data)
        self._end = data[-_MAX_JOB:] if len(data) >= _MAX_JOB else self._end[-_MAX_JOB:] + data
        if self._body <= 0:
            head = self._head
            self._head = b""
            self._handle(head)

    def _handle(self, head: bytes) -> None:
        if self._replica.loading:
            self._respond(b"503 Service Unavailable", _LOADING)
        elif head.startswith(b"get /slots"):
            self._respond(b"200 OK", self._replica.slots())
        elif head.startswith(b"get "):
            self._respond(b"200 OK", b'{"status":"ok"}')
        else:
            job = job_in(head) if header_in(head, HEADER) else job_in_body(self._end)
            chat = head.startswith(b"post /v1/chat/")
            self._running = RunningRequest(job, self._replica, self._transport, chat=chat)
            self._replica.accept(self._running)

    def _respond(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, len(body)) + body)


class Fakes:
    """The commands of this process."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._replicas: list[Replica] = []
        self._servers: list[asyncio.Server] = []

    @property
    def busy(self) -> int:
        """Number of busy slots."""
        return sum(each.busy for each in self._replicas)

    async def serve(self, replicas: int, **options: int) -> list[int]:
        """Replace all replicas by new ones with these ReplicaOptions; return their ports."""
        for server in self._servers:
            server.close()
        self.counters = Counters()
        self._replicas = [
            Replica(ReplicaOptions(**options), self.counters) for _ in range(replicas)
        ]
        loop = asyncio.get_running_loop()
        self._servers = [
            await loop.create_server(partial(Connection, each), "127.0.0.1", 0)
            for each in self._replicas
        ]
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    async def loading(self, replica: int, flag: bool) -> None:
        """Set whether this replica responds with status 503, as while it loads its model."""
        self._replicas[replica].loading = flag

    async def reset(self) -> None:
        """Reset the counters and empty the prompt caches."""
        self.counters = Counters()
        for replica in self._replicas:
            replica.counters = self.counters
            replica.clear_cache()

    async def stats(self) -> dict[str, object]:
        """Return the Counters."""
        return asdict(self.counters)


if __name__ == "__main__":
    fakes = Fakes()
    run({name: getattr(fakes, name) for name in ("serve", "loading", "reset", "stats")})
