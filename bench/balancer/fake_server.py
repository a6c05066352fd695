"""Fast fake llama-servers: slots, a line of their own behind them, /slots, /health, streams.

All of them live in this one process, so that the starts of requests have one order and one clock
(CLOCK_MONOTONIC in nanoseconds, which the load generator reads too).
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

from bench.balancer.jobs import Job, header_in, job_in
from bench.balancer.worker import run

_HEAD = (
    b"HTTP/1.1 %s\r\nServer: llama.cpp\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
# As long as an event of /v1/chat/completions is; the time has always 19 digits.
_EVENT = (
    b'data: {"t":%019d,"choices":[{"finish_reason":null,"index":0,"delta":{"content":" token"}}],'
    b'"created":1790000000,"id":"chatcmpl-0123456789abcdefghijklmnopqrstuv","model":"fake",'
    b'"system_fingerprint":"b0000","object":"chat.completion.chunk"}\n\n'
)
_CHUNK = b"%x\r\n%s\r\n" % (len(_EVENT % 0), _EVENT)
_LOADING = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'


@dataclass(frozen=True, slots=True)
class Kind:
    """What the fakes are like.

    `step_us`: a request whose client left keeps its slot to the end of its decode step of so long.
    `cache`: prompts that a replica remembers, the last used ones; one that it does not have costs
    `miss_us` more on the slot. 0: no cache, nothing costs more.
    """

    slots: int
    step_us: int = 10_000
    cache: int = 0
    miss_us: int = 0


@dataclass(slots=True)
class Record:
    """What happened at all replicas since the last reset."""

    over_commits: int = 0
    """Requests that came to a replica without a free slot."""
    most_at_once: int = 0
    started: int = 0
    let_go: list[int] = field(default_factory=list)
    """When slots of requests whose client had left came free, in nanoseconds."""


class Replica:
    """One llama-server: at most `slots` requests run, the others stand in its own line."""

    def __init__(self, kind: Kind, record: Record) -> None:
        self.kind = kind
        self.record = record
        self.loading = False
        self.busy = 0
        self._line: deque[Running] = deque()
        self._prompts: OrderedDict[int, None] = OrderedDict()

    def arrive(self, running: "Running") -> None:
        """Start it, or let it wait here."""
        if self.busy < self.kind.slots:
            self._start(running)
        else:
            self.record.over_commits += 1
            self._line.append(running)

    def free(self) -> None:
        """A slot is free."""
        self.busy -= 1
        if self._line:
            self._start(self._line.popleft())

    def leave(self, running: "Running") -> None:
        """Its client has left."""
        if running in self._line:
            self._line.remove(running)
        elif running.start:
            step = self.kind.step_us * 1000
            rest = step - (time.monotonic_ns() - running.start) % step
            asyncio.get_running_loop().call_later(rest / 1e9, self._let_go)

    def slots(self) -> bytes:
        """The body of /slots."""
        listed = [
            {"id": number, "n_ctx": 4096, "is_processing": number < self.busy}
            for number in range(self.kind.slots)
        ]
        return json.dumps(listed).encode()

    def forget(self) -> None:
        """Empty the prompt cache."""
        self._prompts.clear()

    def _let_go(self) -> None:
        self.record.let_go.append(time.monotonic_ns())
        self.free()

    def _start(self, running: "Running") -> None:
        self.busy += 1
        self.record.started += 1
        self.record.most_at_once = max(self.record.most_at_once, self.busy)
        running.begin(self._remembers(running.job.session))

    def _remembers(self, session: int) -> bool:
        if session < 0 or not self.kind.cache:
            return True
        hit = session in self._prompts
        self._prompts[session] = None
        self._prompts.move_to_end(session)
        if len(self._prompts) > self.kind.cache:
            self._prompts.popitem(last=False)
        return hit


class Running:
    """One request at a replica, from its arrival to its end."""

    __slots__ = ("_hit", "_left", "_replica", "_timer", "_transport", "job", "start")

    def __init__(self, job: Job, replica: Replica, transport: asyncio.Transport) -> None:
        self.job = job
        self.start = 0
        """When it got its slot, in nanoseconds; 0: not yet."""
        self._replica = replica
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._left = job.tokens
        self._hit = True

    def begin(self, hit: bool) -> None:
        """It has a slot; `hit`: its prompt is in the cache."""
        self.start = time.monotonic_ns()
        self._hit = hit
        service = self.job.service_us + (0 if hit else self._replica.kind.miss_us)
        self._after(service, self._first if self.job.tokens else self._whole)

    def leave(self) -> None:
        """Its client has left."""
        if self._timer:
            self._timer.cancel()
        self._replica.leave(self)

    def over(self) -> bool:
        """Its answer is complete."""
        return self._left < 0

    def _after(self, delay_us: int, then: Callable[[], None]) -> None:
        if delay_us:
            self._timer = asyncio.get_running_loop().call_later(delay_us / 1e6, then)
        else:
            then()

    def _whole(self) -> None:
        self._left = -1
        self._replica.free()
        said = {"start": self.start, "end": time.monotonic_ns(), "hit": self._hit}
        body = json.dumps(said).encode()
        self._transport.write(_HEAD % (b"200 OK", len(body)) + body)

    def _first(self) -> None:
        self._transport.write(_STREAM + _CHUNK % time.monotonic_ns())
        self._next()

    def _token(self) -> None:
        self._transport.write(_CHUNK % time.monotonic_ns())
        self._next()

    def _next(self) -> None:
        self._left -= 1
        if self._left:
            self._after(self.job.interval_us, self._token)
        else:
            self._left = -1
            self._replica.free()
            self._transport.write(b"0\r\n\r\n")


class Connection(asyncio.Protocol):
    """One connection to a replica: a request, its answer, the next request."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._buffer = b""
        self._body = 0
        self._head = b""
        self._running: Running | None = None
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever asked has left."""
        if self._running and not self._running.over():
            self._running.leave()

    @override
    def data_received(self, data: bytes) -> None:
        """A piece of a request; of bodies only the length counts."""
        if not self._head:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._buffer = data
                return
            self._buffer = b""
            self._head = data[:end].lower()
            self._body = int(header_in(self._head, b"content-length") or 0) + end
        self._body -= len(data)
        if self._body <= 0:
            head = self._head
            self._head = b""
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if self._replica.loading:
            self._say(b"503 Service Unavailable", _LOADING)
        elif head.startswith(b"get /slots"):
            self._say(b"200 OK", self._replica.slots())
        elif head.startswith(b"get "):
            self._say(b"200 OK", b'{"status":"ok"}')
        else:
            self._running = Running(job_in(head), self._replica, self._transport)
            self._replica.arrive(self._running)

    def _say(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, len(body)) + body)


class Fakes:
    """The verbs of this process."""

    def __init__(self) -> None:
        self.record = Record()
        self._replicas: list[Replica] = []
        self._servers: list[asyncio.Server] = []

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return sum(each.busy for each in self._replicas)

    async def serve(self, replicas: int, **kind: int) -> list[int]:
        """So many replicas of this Kind, instead of those that there were; their ports."""
        for server in self._servers:
            server.close()
        self.record = Record()
        self._replicas = [Replica(Kind(**kind), self.record) for _ in range(replicas)]
        loop = asyncio.get_running_loop()
        self._servers = [
            await loop.create_server(partial(Connection, each), "127.0.0.1", 0)
            for each in self._replicas
        ]
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    async def loading(self, replica: int, flag: bool) -> None:
        """From now on this replica answers 503, or does not any more."""
        self._replicas[replica].loading = flag

    async def reset(self) -> None:
        """Forget what happened, and all prompts."""
        self.record = Record()
        for replica in self._replicas:
            replica.record = self.record
            replica.forget()

    async def stats(self) -> dict[str, object]:
        """The Record."""
        return asdict(self.record)


if __name__ == "__main__":
    fakes = Fakes()
    run({name: getattr(fakes, name) for name in ("serve", "loading", "reset", "stats")})
