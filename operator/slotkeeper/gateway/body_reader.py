"""Reads large bodies, in steps in which other requests make progress."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange

_log = logging.getLogger(__name__)

T = TypeVar("T")


class BodyReader:
    """Reads the bodies of requests before they are forwarded.

    `reject` responds with an error to a request with an API key of this name; `on_change` is called
    when `reading` has changed.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        reject: Callable[[Exchange, HttpError, str | None], None],
        on_change: Callable[[], None],
    ) -> None:
        self.reading = 0
        """Requests whose bodies are being read."""
        self.lock = asyncio.Lock()
        """One at a time: each needs its body in one piece, which is a copy of it."""
        self._spawn = spawn
        self._reject = reject
        self._on_change = on_change

    def read(
        self,
        exchange: Exchange,
        key: str | None,
        read: Callable[[], Awaitable[T]],
        forward: Callable[[T], None],
    ) -> None:
        """Read a body in a task; then call `forward` with the result.

        `key`: the name of the API key. Both functions may raise HttpError.
        """
        self.reading += 1
        self._on_change()
        self._spawn(self._read(exchange, key, read, forward))

    async def _read(
        self,
        exchange: Exchange,
        key: str | None,
        read: Callable[[], Awaitable[T]],
        forward: Callable[[T], None],
    ) -> None:
        connected = True

        def on_disconnect() -> None:
            nonlocal connected
            connected = False

        exchange.on_disconnect = on_disconnect
        try:
            async with self.lock:
                if not connected:
                    return
                found = await read()
            if connected:
                forward(found)
        except HttpError as error:
            if connected:
                self._reject(exchange, error, key)
        except Exception:
            _log.exception("reading the model of a request failed")
            if connected:
                message = "internal error while reading the request"
                self._reject(exchange, HttpError(500, "internal_error", message), key)
        finally:
            self.reading -= 1
            self._on_change()
