"""Starts a replica of a model at zero, for later requests: a fallback serves the present one."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from slotkeeper.error_text import describe
from slotkeeper.gateway.models import Model
from slotkeeper.wire.client import Pool
from slotkeeper.wire.message import Request
from slotkeeper.wire.response_end import ResponseEnd

_log = logging.getLogger(__name__)

_BODY = b'{"content":""}'
_PATH = b"/tokenize"
"""A balancer queues a request for it as any other, which starts a replica. llama-server responds at
once, and without a slot."""


class Waker:
    """Sends a request of its own to a server, one at a time for each, and ignores the response.

    The balancer queues it until a replica is ready. `seconds` returns how long to wait for that.
    """

    def __init__(
        self,
        pool: Callable[[Model], Pool],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        seconds: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._spawn = spawn
        self._seconds = seconds
        self._running: set[str] = set()

    def wake(self, model: Model, message: Request, encode_head: Callable[[Request], bytes]) -> None:
        """Start a replica, unless a request for that is in progress.

        `message`: the request of a client, whose headers, such as its API key, are sent.
        """
        if model.uid in self._running:
            return
        self._running.add(model.uid)
        headers = [each for each in message.headers if each[0].lower() != b"content-type"]
        sent = replace(message, target=_PATH, headers=headers, parts=(_BODY,), size=len(_BODY))
        self._spawn(self._send(model, encode_head(sent)))

    async def _send(self, model: Model, head: bytes) -> None:
        try:
            async with asyncio.timeout(self._seconds()):
                connection = await self._pool(model).connect()
                response = ResponseEnd()
                try:
                    connection.send(head, (_BODY,), response)
                    await response.ended
                finally:
                    connection.abort()
        except OSError as error:
            _log.warning("cannot start a replica of model %s: %s", model.name, describe(error))
        finally:
            self._running.discard(model.uid)
