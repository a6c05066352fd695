"""What the servers report of their models: their sizes, and what they are capable of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from slotkeeper.error_text import describe
from slotkeeper.gateway.models import Model
from slotkeeper.llamacpp.model_info import ModelInfo, parse_model_info

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
_MAX_CONCURRENT = 4
UNKNOWN = ModelInfo()


@dataclass(slots=True)
class _Entry:
    uid: str
    generation: int
    info: ModelInfo = UNKNOWN
    ready: bool = False


class ModelEntries:
    """Reads a server's /v1/models and /props when it becomes ready or its spec changes, and every
    minute.

    `fetch` returns the body of the response to a path, or raises OSError. What was read last is
    kept while a server is at zero.
    """

    def __init__(
        self,
        fetch: Callable[[Model, str], Awaitable[bytes]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._fetch = fetch
        self._spawn = spawn
        self._entries: dict[str, _Entry] = {}
        self._fetching = asyncio.Semaphore(_MAX_CONCURRENT)
        self._models: tuple[Model, ...] = ()

    def info(self, model: Model) -> ModelInfo:
        """Return what the model's server has reported last."""
        entry = self._entries.get(model.server)
        return entry.info if entry and entry.uid == model.uid else UNKNOWN

    def update(self, models: Iterable[Model]) -> None:
        """Set the current models."""
        self._models = tuple(models)
        before = self._entries
        self._entries = {}
        for model in self._models:
            entry = before.get(model.server)
            if entry is None or entry.uid != model.uid:
                entry = _Entry(model.uid, model.generation)
            ready = model.state == "Ready"
            if ready and not (entry.ready and entry.generation == model.generation):
                self._spawn(self._read(model, entry))
            entry.ready = ready
            entry.generation = model.generation
            self._entries[model.server] = entry

    async def refresh(self) -> None:
        """Read all ready servers again every minute. Never returns."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            for model in self._models:
                entry = self._entries.get(model.server)
                if entry and entry.ready:
                    await self._read(model, entry)

    async def _read(self, model: Model, entry: _Entry) -> None:
        async with self._fetching:
            models = await self._body(model, "/v1/models")
            # Other servers than llama-server have no such path.
            props = await self._body(model, "/props") if models else b""
        info = parse_model_info(models, props)
        if info.model or info.capabilities:
            entry.info = info

    async def _body(self, model: Model, path: str) -> bytes:
        """Return the body of a path of the server; empty if it cannot be read."""
        try:
            return await self._fetch(model, path)
        except OSError as error:
            _log.debug("server %s: cannot read %s: %s", model.server, path, describe(error))
            return b""
