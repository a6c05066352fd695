"""Connections to the servers: one pool for each."""

from collections.abc import Callable, Iterable

from slotkeeper.flags import Address
from slotkeeper.gateway.models import Model
from slotkeeper.llamacpp.model_info import MAX_BYTES
from slotkeeper.wire import http_get
from slotkeeper.wire.client import Pool

_MAX_IDLE = 64
_FETCH_SECONDS = 5.0


class Upstreams:
    """The pools. `address` returns host and port of a server, by its name."""

    def __init__(self, address: Callable[[str], Address]) -> None:
        self._address = address
        self._connect_seconds = 5.0
        self._pools: dict[str, Pool] = {}

    def pool(self, model: Model) -> Pool:
        """Return the pool of the model's server."""
        pool = self._pools.get(model.uid)
        if pool is None:
            host, port = self._address(model.server)
            pool = self._pools[model.uid] = Pool(
                host, port, max_idle=_MAX_IDLE, connect_seconds=self._connect_seconds
            )
        return pool

    async def fetch(self, model: Model, path: str) -> bytes:
        """Return the body of a path of the server, such as /v1/models. Raises OSError."""
        host, port = self._address(model.server)
        status, body = await http_get.get(
            host, port, path, seconds=_FETCH_SECONDS, max_bytes=MAX_BYTES
        )
        if status != 200:
            raise OSError(f"status {status}")
        return body

    def set_connect_seconds(self, seconds: float) -> None:
        """Set the timeout of connecting."""
        if seconds != self._connect_seconds:
            self._connect_seconds = seconds
            self.keep(())

    def keep(self, models: Iterable[Model]) -> None:
        """Close the pools of all other servers; their responses in progress continue."""
        kept = {model.uid for model in models}
        for uid in self._pools.keys() - kept:
            self._pools.pop(uid).close()
