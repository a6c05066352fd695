"""An SSE response that starts before the replica's, with keep-alive comments while queued.

The comments keep the client, and proxies in between, from timing out. They commit the response to
status 200: every later outcome, errors included, must be sent as an event inside it.
"""

import json

from slotkeeper.bounded_json import parse
from slotkeeper.edge import cors
from slotkeeper.edge.error_format import error_response, is_anthropic
from slotkeeper.edge.wait_headers import position_header
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.framing import Framing
from slotkeeper.wire.message import ResponseHead, encode_response_head, value_of

_LAST_CHUNK = b"0\r\n\r\n"
_MAX_BUFFERED = 4 * 1024 * 1024
"""Bytes of a response that is no stream, which is buffered to be sent as one event."""
_MAX_ERROR_BYTES = 64 * 1024
"""Bytes of a replica's error that is parsed. llama-server's errors are far smaller."""


class EarlySseResponse:
    """The response to `exchange`. `position` is the request's queue position on arrival."""

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
        """The number of comments sent."""
        self.streams = False
        """The replica's response is a stream, and is passed on as it arrives."""
        self._exchange = exchange
        self._position = position
        self._status = 0
        self._buffered: list[bytes] = []
        self._size = 0

    def send_keepalive(self, position: int) -> None:
        """Send a comment, which SSE parsers ignore; before the first one, the head."""
        comment = _chunk(b": queued, position %d\n\n" % position)
        if self.keepalives_sent:
            self._exchange.write(comment)
        else:
            self._exchange.begin(200, self._head() + comment)
        self.keepalives_sent += 1

    def end_with_error(self, error: HttpError) -> None:
        """Send an error event and end the response."""
        response = error_response(error, self._exchange.request.path)
        self._exchange.write(self._event(response.body, error.status) + _LAST_CHUNK)
        self._exchange.end()

    def on_head(self, head: ResponseHead, framing: Framing) -> bool:
        """Read and drop the head of the replica's response.

        Return whether the bytes of the body pass through unchanged, with their chunk framing.
        """
        content_type = value_of(head.headers, b"content-type") or b""
        self.streams = head.status == 200 and content_type.lower().startswith(b"text/event-stream")
        self._status = head.status
        return self.streams and framing.chunked

    def body(self, payload: bytes) -> bytes:
        """Return the bytes to send for a piece of the replica's body, without its framing."""
        if self.streams:
            return _chunk(payload)
        self._size += len(payload)
        if self._size <= _MAX_BUFFERED:
            self._buffered.append(payload)
        return b""

    def end(self) -> bytes:
        """Return the bytes to send when the replica's body, which is not passed through, ends."""
        if self.streams:
            return _LAST_CHUNK
        if self._size > _MAX_BUFFERED:
            return self._event(b"response is too large for one event", 502) + _LAST_CHUNK
        return self._event(b"".join(self._buffered), self._status) + _LAST_CHUNK

    def _head(self) -> bytes:
        request = self._exchange.request
        # This head declares no Content-Encoding, so the replica must not use one.
        request.headers = [
            each for each in request.headers if each[0].lower() != b"accept-encoding"
        ]
        headers = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")]
        return encode_response_head(
            ResponseHead(200, b"OK", headers, True),
            chunked=True,
            connection=self._exchange.connection_header(),
            added=[position_header(self._position), *cors.ANY_ORIGIN.allow_origin_headers(request)],
        )

    def _event(self, body: bytes, status: int) -> bytes:
        if status == 200:
            # Unchanged, except that SSE requires a field name on each line of several.
            return _chunk(b"data: " + b"\ndata: ".join(body.splitlines()) + b"\n\n")
        error = _error(body, status)
        if is_anthropic(self._exchange.request.path):
            # Anthropic's clients read named events only.
            named = _dump({"type": "error", "error": error})
            return _chunk(b"event: error\ndata: %s\n\n" % named)
        return _chunk(b"data: %s\n\n" % _dump({"error": error}))


def _chunk(data: bytes) -> bytes:
    # An empty chunk would end the body.
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _error(body: bytes, status: int) -> object:
    try:
        tree = parse(body, max_bytes=_MAX_ERROR_BYTES)
    except ValueError:
        tree = None
    if isinstance(tree, dict) and tree.get("error"):
        return tree["error"]
    message = body[:1000].decode(errors="replace") or f"replica responded with status {status}"
    return {"message": message, "type": "server_error", "code": status}


def _dump(tree: object) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()
