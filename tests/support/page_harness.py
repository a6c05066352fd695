"""The gateway's page on a free port, with models that a test chooses and scripted chat completions.

It stands for the gateway: the page's own handler, below a path prefix if one is given, beside a
fake of `/v1/chat/completions`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from slotkeeper.gateway.page.handler import STATE_PATH, Page
from slotkeeper.gateway.page.state import PageModel, page_state
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, ResponseHead, encode_response_head, json_response
from slotkeeper.wire.server import Server

CHAT_PATH = b"/v1/chat/completions"


class ChatCall:
    """One request for a chat completion, and its response."""

    def __init__(self, exchange: Exchange) -> None:
        self.body: dict[str, Any] = json.loads(exchange.request.body)
        self.authorization = exchange.request.header(b"authorization")
        self.disconnected = asyncio.Event()
        self.proceed = asyncio.Event()
        """Set by the test, for scripts that wait for it."""
        self._exchange = exchange
        exchange.on_disconnect = self.disconnected.set

    def begin(self) -> None:
        """Send the head of a stream."""
        headers = [(b"Content-Type", b"text/event-stream")]
        head = ResponseHead(200, b"OK", headers, True)
        self._exchange.begin(200, encode_response_head(head, chunked=True, connection=None))

    def send(self, data: bytes) -> None:
        """Send bytes of the stream."""
        if not self.disconnected.is_set():
            self._exchange.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, tree: object) -> None:
        self.send(b"data: %s\n\n" % json.dumps(tree).encode())

    def delta(self, **fields: str) -> None:
        self.event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})

    def finish(self, tokens: int = 0, reason: str = "stop") -> None:
        """Send the last events, as llama-server does, and end the response."""
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if tokens:
            self.event({"choices": [], "usage": {"completion_tokens": tokens}})
        self.send(b"data: [DONE]\n\n")
        self.end()

    def end(self) -> None:
        if not self.disconnected.is_set():
            self._exchange.write(b"0\r\n\r\n")
            self._exchange.end()

    def abort(self) -> None:
        self._exchange.abort(reset=True)

    def error(self, error: HttpError) -> None:
        self._exchange.respond_with_error(error)

    def respond(self, status: int, tree: object) -> None:
        self._exchange.respond(json_response(status, tree))


Script = Callable[[ChatCall], Awaitable[None]]


async def greet(call: ChatCall) -> None:
    """Stream "Hello there." in two pieces."""
    call.begin()
    call.delta(role="assistant", content="Hello ")
    call.delta(content="there.")
    call.finish(tokens=2)


@dataclass
class PageGateway:
    """What the page is served from. A test may change all of it at any time."""

    prefix: str = ""
    url: str = ""
    models: Sequence[PageModel] = ()
    keys: dict[str, Sequence[str]] | None = None
    """Secret of each API key -> models that it may use; None: no key is required."""
    script: Script = greet
    failure: HttpError | None = None
    """The response to each request for the state."""
    held: asyncio.Event | None = None
    """If set, responses to requests for the state wait for it."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    targets: list[str] = field(default_factory=list)
    """Targets of all requests."""
    authorizations: list[bytes | None] = field(default_factory=list)
    """Authorization headers of the requests for the state."""
    chats: list[ChatCall] = field(default_factory=list)
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Time passes with each request: no state is sent twice, so that changes show at once.
        requests = count()
        self._page = Page(self._authenticate, self._state, lambda: 2.0 * next(requests))

    def handle(self, exchange: Exchange) -> None:
        """Respond as the gateway's router does."""
        path = exchange.request.path
        self.targets.append(exchange.request.target.decode())
        if not path.startswith(self.prefix.encode()):
            exchange.respond_with_error(HttpError(404, "not_found", "outside of the prefix"))
            return
        path = path.removeprefix(self.prefix.encode())
        if path == CHAT_PATH:
            self._chat(exchange)
        elif self.held and path == STATE_PATH:
            self._spawn(self._respond_later(exchange, self.held))
        elif not self._page.respond(exchange, path):
            exchange.respond_with_error(HttpError(404, "not_found", f"no path {path.decode()}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _authenticate(self, request: Request) -> str:
        """Return the API key itself as its name. Raises HttpError."""
        value = request.header(b"authorization")
        self.authorizations.append(value)
        if self.failure:
            raise self.failure
        return self._owner(value)

    def _owner(self, authorization: bytes | None) -> str:
        if self.keys is None:
            return ""
        secret = (authorization or b"").removeprefix(b"Bearer ").decode()
        if secret not in self.keys:
            raise HttpError(401, "invalid_api_key", "invalid API key")
        return secret

    def _state(self, key: str) -> object:
        allowed = None if self.keys is None else self.keys[key]
        models = [each for each in self.models if allowed is None or each.name in allowed]
        return page_state(models, gateway="default/llm", now=self.now)

    def _chat(self, exchange: Exchange) -> None:
        try:
            self._owner(exchange.request.header(b"authorization"))
        except HttpError as error:
            exchange.respond_with_error(error)
            return
        call = ChatCall(exchange)
        self.chats.append(call)
        self._spawn(self.script(call))

    async def _respond_later(self, exchange: Exchange, held: asyncio.Event) -> None:
        await held.wait()
        self._page.respond(exchange, STATE_PATH)

    def _spawn(self, task: Awaitable[None]) -> None:
        running = asyncio.ensure_future(task)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def run_page(prefix: str = "") -> AsyncIterator[PageGateway]:
    """Serve the page at `prefix` + "/", as behind an Ingress that removes the prefix."""
    gateway = PageGateway(prefix)
    server = Server(gateway.handle)
    host, port = await server.listen("127.0.0.1", 0)
    gateway.url = f"http://{host}:{port}{prefix}/"
    try:
        yield gateway
    finally:
        await server.close()
        await gateway.close()
