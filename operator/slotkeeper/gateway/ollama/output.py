"""The response of a server, translated to Ollama's format as it arrives."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from slotkeeper.bounded_json import parse
from slotkeeper.edge.wait_headers import WAIT_SECONDS
from slotkeeper.gateway.ollama.embeddings import EmbeddingsResponse
from slotkeeper.gateway.ollama.events import error_message
from slotkeeper.gateway.ollama.requests import Kind, Translated
from slotkeeper.gateway.ollama.responses import (
    MAX_RESPONSE,
    BadResponse,
    Durations,
    Generation,
)
from slotkeeper.gateway.ollama.sse import EventParser, EventTooLarge
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import (
    JSON,
    Header,
    Response,
    ResponseHead,
    encode_response,
    encode_response_head,
    value_of,
)

NDJSON = b"application/x-ndjson"
_MAX_ERROR = 64 * 1024
_PASSED = (b"x-slotkeeper-", b"retry-after")
_LAST_CHUNK = b"0\r\n\r\n"


class OllamaOutput:
    """Writes the translated response of a server to `exchange`.

    `model`: the name that the request has. `now`: the event loop's clock; `wall`: the time; both in
    seconds.
    """

    unchanged = False

    def __init__(
        self,
        exchange: Exchange,
        request: Translated,
        model: str,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.close_ends_body = False
        """The end of the client's connection marks the end of the body."""
        self.failure = ""
        """Why the server's response cannot be translated."""
        self._exchange = exchange
        self._request = request
        self._now = now
        self._wall = wall
        self._arrived_at = now()
        self._queued: float | None = None
        self._status = 0
        self._headers: list[Header] = []
        self._parser = EventParser()
        self._comments = 0
        self._streams = False  # the server's response is a stream of events
        self._began = False  # the response to the client has begun
        self._buffered: list[bytes] = []
        self._size = 0
        self._generation = Generation(request.kind, model)
        self._embeddings = (
            EmbeddingsResponse(request.kind, model)
            if request.kind in {Kind.EMBED, Kind.EMBEDDINGS}
            else None
        )

    def begin(
        self,
        head: ResponseHead,
        framing: Framing,  # noqa: ARG002 (as for a response that passes through)
        added: Iterable[Header],
        *,
        more: bool,  # noqa: ARG002
    ) -> None:
        """Read the head of the server's response; `added`: further headers of the client's."""
        self._status = head.status
        self._headers = [
            *(header for header in head.headers if header[0].lower().startswith(_PASSED)),
            *added,
        ]
        waited = value_of(head.headers, WAIT_SECONDS.lower())
        if waited:
            self._queued = _seconds(waited)
        content_type = value_of(head.headers, b"content-type") or b""
        self._streams = content_type.lower().startswith(b"text/event-stream")

    def write(self, data: bytes) -> None:
        """Translate bytes of the server's body."""
        try:
            if self._status == 200 and self._streams:
                self._write_events(data)
            elif self._status == 200 and self._embeddings:
                self._send(self._embeddings.convert(data), JSON)
            else:
                self._buffer(data)
        except (BadResponse, EventTooLarge) as error:
            self.failure = str(error) or "the server sent an event that is too large"

    def finish(self) -> None:
        """Send what ends the response. The exchange is not ended."""
        try:
            if self._status != 200:
                self._send_error()
            elif self._embeddings:
                self._send(self._embeddings.end(self._durations()), JSON)
                self._end_body()
            elif self._streams and not self._request.stream:
                raise BadResponse("the server sent a stream")
            elif self._streams:
                self._send_lines(self._generation.last(self._durations(), self._wall()))
                self._end_body()
            else:
                self._send_whole()
        except BadResponse as error:
            self.failure = str(error)

    def fail(self, message: str) -> bool:
        """End a response that has begun with an error; return False if its format has none."""
        if not self._streams or self._embeddings:
            return False
        self._send(_line({"error": message}), NDJSON)
        self._end_body()
        return True

    def error(self, response: Response) -> Response:
        """Translate a complete error response."""
        return Response(
            response.status,
            _line({"error": _error_text(response.status, response.body)}),
            JSON,
            [header for header in response.headers if header[0].lower().startswith(_PASSED)],
        )

    def _write_events(self, data: bytes) -> None:
        lines = []
        for event in self._parser.feed(data):
            if self._queued is None and not self._generation.began:
                self._queued = self._now() - self._arrived_at
            lines += self._generation.event(event, self._wall())
        if self._parser.comments > self._comments and not lines:
            # A client would time out, and so would proxies in between.
            lines = [self._generation.keep_alive(self._wall())]
        self._comments = self._parser.comments
        self._send_lines(lines)

    def _send_lines(self, lines: Iterable[Any]) -> None:
        self._send(b"".join(map(_line, lines)), NDJSON)

    def _buffer(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > (MAX_RESPONSE if self._status == 200 else _MAX_ERROR):
            raise BadResponse("the server's response is too large")
        self._buffered.append(data)

    def _send_whole(self) -> None:
        wall = self._wall()
        if self._request.load:
            tree = self._generation.loaded(wall)
        else:
            tree = self._generation.whole(b"".join(self._buffered), self._durations(), wall)
        self._respond(200, tree)

    def _send_error(self) -> None:
        message = _error_text(self._status, b"".join(self._buffered))
        self._respond(self._status, {"error": message})

    def _respond(self, status: int, tree: object) -> None:
        exchange = self._exchange
        response = Response(status, _line(tree), JSON, self._headers)
        data = encode_response(response, connection=exchange.connection_header())
        exchange.begin(status, data)

    def _send(self, data: bytes, content_type: bytes) -> None:
        """Send bytes of a body whose size is not known; before the first ones, the head."""
        if not data:
            return
        exchange = self._exchange
        head = b""
        if not self._began:
            self._began = True
            self.close_ends_body = not exchange.request.http11
            headers = [(b"Content-Type", content_type), *self._headers]
            head = encode_response_head(
                ResponseHead(200, b"OK", [], True),
                chunked=not self.close_ends_body,
                connection=exchange.connection_header(closing=self.close_ends_body),
                added=headers,
            )
        if not self.close_ends_body:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        if head:
            exchange.begin(200, head + data)
        else:
            exchange.write(data)

    def _end_body(self) -> None:
        if not self.close_ends_body:
            self._exchange.write(_LAST_CHUNK)

    def _durations(self) -> Durations:
        queued = self._queued or 0.0
        if self._comments:
            # Measured until the first event, which follows the processing of the prompt.
            queued = max(0.0, queued - self._generation.prompt_seconds)
        return Durations(queued, self._now() - self._arrived_at)


def _error_text(status: int, body: bytes) -> str:
    try:
        tree = parse(body, max_bytes=_MAX_ERROR)
    except ValueError:
        tree = None
    return error_message(tree) or f"the server responded with status {status}"


def _line(tree: object) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _seconds(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
