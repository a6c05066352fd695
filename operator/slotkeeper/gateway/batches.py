"""Forwards files and batches to the process that keeps them. It checks the API key once more."""

import asyncio
from collections import Counter
from collections.abc import Callable

from slotkeeper.api.child_name import batches
from slotkeeper.edge import access
from slotkeeper.edge.cors import CorsPolicy
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.pass_through import PassThrough
from slotkeeper.error_text import describe
from slotkeeper.flags import Address
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead, encode_request_head
from slotkeeper.wire.tasks import Tasks
from slotkeeper.wire.timer import Timer

MAX_UPLOADS = 16
"""Uploads in progress in one pod. Each occupies up to half a megabyte."""
MAX_UPLOADS_OF_KEY = 8
"""Those of one API key: a client may take as long as it likes to send a file."""

_PATHS = (b"/v1/files", b"/v1/batches")
_CONNECT_SECONDS = 5.0
_SECONDS = 120.0
"""Without a byte of the response: the end of an upload is written to the disk before."""
_FORWARDED = access.FORWARDED | access.SECRETS
_METHODS = b"GET, POST, DELETE, OPTIONS"

Finished = Callable[[Exchange, str | None, Outcome, float], None]


def is_batches_path(path: bytes) -> bool:
    """Whether a path is one of files or batches."""
    return path in _PATHS or path.startswith((b"/v1/files/", b"/v1/batches/"))


def disabled() -> HttpError:
    """404: this gateway has no batches."""
    return HttpError(
        404,
        "batches_disabled",
        "this gateway has no files and batches: set spec.batches of the LlamaGateway",
    )


class Batches:
    """Forwards requests. `address` returns host and port of a Service, by its name.

    `on_finished` records a request: the name of its API key, its outcome and its duration.
    """

    def __init__(
        self,
        gateway: str,
        address: Callable[[str], Address],
        cors: CorsPolicy,
        tasks: Tasks,
        on_finished: Finished,
    ) -> None:
        self.cors = cors
        self.spawn = tasks.spawn
        self.active: set[BatchesRequest] = set()
        self.uploads = Counter[str | None]()
        """Those in progress, by the name of their API key."""
        self.service = batches(gateway)
        self._address = address
        self._on_finished = on_finished

    def preflight(self, exchange: Exchange) -> None:
        """Respond to a preflight request of a browser."""
        self.cors.respond(exchange, self.cors.preflight(exchange.request, _METHODS))

    def check_upload(self, key: str | None) -> None:
        """Raise HttpError if too many uploads are in progress; `key`: the name of the API key."""
        of_key = 0 if key is None else self.uploads[key]
        if self.uploads.total() >= MAX_UPLOADS or of_key >= MAX_UPLOADS_OF_KEY:
            count = (
                f"{of_key} uploads of this API key"
                if of_key >= MAX_UPLOADS_OF_KEY
                else f"{MAX_UPLOADS} uploads"
            )
            raise HttpError(
                503,
                "too_many_uploads",
                f"{count} are in progress here: retry later",
                retry_after=5,
            )

    def forward(self, exchange: Exchange, key: str | None) -> None:
        """Forward a request; `key`: the name of its API key. Raises HttpError."""
        if exchange.request.stream:
            self.check_upload(key)
            self.uploads[key] += 1
        host, port = self._address(self.service)
        pool = Pool(host, port, max_idle=0, connect_seconds=_CONNECT_SECONDS)
        request = BatchesRequest(self, exchange, key)
        self.active.add(request)
        self.spawn(request.run(pool))

    def abort(self) -> None:
        """End all requests: the gateway shuts down."""
        for request in list(self.active):
            request.abort()

    def finished(self, request: "BatchesRequest", outcome: Outcome, seconds: float) -> None:
        """Forget a request, and record it."""
        self.active.discard(request)
        if request.exchange.request.stream:
            self.uploads[request.key] -= 1
        self._on_finished(request.exchange, request.key, outcome, seconds)


class BatchesRequest:
    """One request, the Receiver of its response, and the reader of its body.

    Each has a connection of its own: few are sent, and an upload cannot be sent again.
    """

    __slots__ = (
        "_connection",
        "_ended",
        "_host",
        "_loop",
        "_output",
        "_started",
        "_timer",
        "exchange",
        "key",
    )

    def __init__(self, host: Batches, exchange: Exchange, key: str | None) -> None:
        self.exchange = exchange
        self.key = key
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._timer = Timer(self._loop)
        self._output = PassThrough(exchange)
        self._connection: UpstreamConnection | None = None
        self._ended = False
        exchange.on_disconnect = self.on_disconnect

    async def run(self, pool: Pool) -> None:
        """Connect and send the request."""
        try:
            connection = await pool.connect()
        except OSError as error:
            message = f"cannot connect to {self._host.service}: {describe(error)}"
            self._fail(HttpError(502, "batches_unavailable", message))
            return
        if self._ended:
            connection.abort()
            return
        self._connection = connection
        exchange = self.exchange
        request = exchange.request
        exchange.on_backpressure = connection.pause
        self._restart_timer()
        head = encode_request_head(request, _FORWARDED)
        if request.stream:
            connection.begin(head, self, request.stream.pause)
            request.stream.start(self)
        else:
            connection.send(head, request.parts, self, to_head=request.method == b"HEAD")

    def on_disconnect(self) -> None:
        """End the request: the client has closed its connection."""
        self._abort_connection()
        self._finish(Outcome.CLIENT_DISCONNECTED)

    def abort(self) -> None:
        """End the request, whatever its state: the gateway shuts down."""
        self.on_disconnect()
        self.exchange.abort(reset=True)

    # BodyReader.

    def on_request_body(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._connection:
            self._restart_timer()
            self._connection.write(data)

    def on_request_end(self) -> None:
        """All of the body has been sent."""
        if self._connection:
            self._connection.end_body()

    # Receiver.

    def on_head(self, head: ResponseHead, framing: Framing, *, more: bool) -> None:
        """Pass the head on."""
        self._restart_timer()
        added = self._host.cors.allow_origin_headers(self.exchange.request)
        self._output.begin(head, framing, added, more=more)

    def on_body(self, data: bytes, framing: Framing) -> None:
        """Pass a piece of the body on."""
        self._restart_timer()
        self._output.write(data if self._output.unchanged else framing.payload())

    def on_end(self) -> None:
        """End the response."""
        self._connection = None
        self._output.write(b"")
        self._finish(Outcome.COMPLETED)
        self.exchange.end()

    def on_lost(self, reason: str, *, began: bool) -> None:  # noqa: ARG002
        """Respond with an error, or abort the response."""
        self._connection = None
        message = f"{self._host.service} failed to respond: {reason}"
        self._fail(HttpError(502, "batches_failed", message))

    def _restart_timer(self) -> None:
        self._timer.start(_SECONDS, self._on_timeout)

    def _on_timeout(self) -> None:
        stream = self.exchange.request.stream
        if self.exchange.paused or (stream and not stream.complete):
            # The client is slow, which its connection limits.
            self._restart_timer()
            return
        self._abort_connection()
        message = f"{self._host.service} has sent nothing for {_SECONDS:g} s"
        self._fail(HttpError(504, "batches_timeout", message))

    def _fail(self, error: HttpError) -> None:
        if self._ended:
            return
        exchange = self.exchange
        if exchange.status:
            self._finish(Outcome.ABORTED)
            exchange.abort(reset=self._output.close_ends_body)
            return
        self._finish(Outcome.FAILED)
        self._host.cors.respond_with_error(exchange, error)

    def _abort_connection(self) -> None:
        if self._connection:
            self._connection.abort()
            self._connection = None

    def _finish(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._timer.stop()
        exchange = self.exchange
        exchange.on_disconnect = exchange.on_backpressure = None
        if stream := exchange.request.stream:
            stream.stop()
        self._host.finished(self, outcome, self._loop.time() - self._started)
