"""A stream that begins before the replica's answer, with comments while its request waits.

So neither the client nor a proxy between takes silence for death. From then on whatever becomes of
the request must be said inside that answer, whose status is 200.
"""

import json

from slotkeeper.edge import cors
from slotkeeper.edge.wait_headers import position_header
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead, encode_response_head, value_of

_LAST_CHUNK = b"0\r\n\r\n"
_MAX_BUFFERED = 4 * 1024 * 1024
"""Bytes of an answer that is no stream, which is kept until it can be one event."""
_MAX_ERROR_BYTES = 64 * 1024
"""Bytes of a replica's error that is parsed; nothing that llama-server says is near that."""


class EarlySseResponse:
    """What the client of `exchange` gets. `position`: its request's place when it came."""

    __slots__ = (
        "_buffered",
        "_exchange",
        "_position",
        "_size",
        "_status",
        "keepalives_sent",
        "streams",
    )

    def __init__(self, exchange: Exchange, position: int) -> None:
        self.keepalives_sent = 0
        """The comments that were sent."""
        self.streams = False
        """The replica streams, and what it sends is passed on as it comes."""
        self._exchange = exchange
        self._position = position
        self._status = 0
        self._buffered: list[bytes] = []
        self._size = 0

    def send_keepalive(self, position: int) -> None:
        """Send a comment, which every reader of events ignores, and the head before the first."""
        comment = _chunk(b": waiting, position %d\n\n" % position)
        if self.keepalives_sent:
            self._exchange.write(comment)
        else:
            self._exchange.begin(200, self._head() + comment)
        self.keepalives_sent += 1

    def end_with_error(self, refusal: HttpError) -> None:
        """End it with a refusal."""
        self._exchange.write(self._event(refusal.response().body, refusal.status) + _LAST_CHUNK)
        self._exchange.end()

    def on_head(self, head: ResponseHead, framing: Framing) -> bool:
        """The replica answers; its head is dropped. Whether its bytes may pass, chunks and all."""
        kind = value_of(head.headers, b"content-type") or b""
        self.streams = head.status == 200 and kind.lower().startswith(b"text/event-stream")
        self._status = head.status
        return self.streams and framing.chunked

    def body(self, payload: bytes) -> bytes:
        """What the client gets for a piece of the replica's body, without its framing."""
        if self.streams:
            return _chunk(payload)
        self._size += len(payload)
        if self._size <= _MAX_BUFFERED:
            self._buffered.append(payload)
        return b""

    def end(self) -> bytes:
        """What the client gets when the replica's body is complete and has no chunks."""
        if self.streams:
            return _LAST_CHUNK
        if self._size > _MAX_BUFFERED:
            return self._event(b"the answer is too large for an event", 502) + _LAST_CHUNK
        return self._event(b"".join(self._buffered), self._status) + _LAST_CHUNK

    def _head(self) -> bytes:
        request = self._exchange.request
        # This head says of no coding, so the replica must use none.
        request.headers = [
            each for each in request.headers if each[0].lower() != b"accept-encoding"
        ]
        headers = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")]
        return encode_response_head(
            ResponseHead(200, b"OK", headers, True),
            chunked=True,
            connection=self._exchange.connection_header(),
            added=[position_header(self._position), *cors.allow_origin_headers(request)],
        )

    def _event(self, body: bytes, status: int) -> bytes:
        if status == 200:
            # As it is; each of its lines, were there several, needs a name of its own.
            return _chunk(b"data: " + b"\ndata: ".join(body.splitlines()) + b"\n\n")
        error = _error(body, status)
        if self._exchange.request.path.endswith(b"/messages"):
            # Anthropic's clients look at named events only.
            named = _dump({"type": "error", "error": error})
            return _chunk(b"event: error\ndata: %s\n\n" % named)
        return _chunk(b"data: %s\n\n" % _dump({"error": error}))


def _chunk(data: bytes) -> bytes:
    # An empty chunk would end the body.
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _error(body: bytes, status: int) -> object:
    try:
        tree = json.loads(body) if len(body) <= _MAX_ERROR_BYTES else None
    except (ValueError, RecursionError):
        tree = None
    if isinstance(tree, dict) and tree.get("error"):
        return tree["error"]
    said = body[:1000].decode(errors="replace") or f"the replica answered {status}"
    return {"message": said, "type": "server_error", "code": status}


def _dump(tree: object) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()
