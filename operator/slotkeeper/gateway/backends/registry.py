"""The external backends of a gateway: their connections, secrets and health."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from slotkeeper.address_guard import AddressGuard
from slotkeeper.gateway.backends import requests
from slotkeeper.gateway.backends.connect import Dial, Resolver, connect, dial
from slotkeeper.gateway.backends.health import BackendHealth
from slotkeeper.gateway.backends.secrets import BackendSecrets
from slotkeeper.gateway.target_config import Backend
from slotkeeper.gateway.targets import BackendModel, backend_models
from slotkeeper.wire.client import Pool, UpstreamConnection
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Request

_MAX_IDLE = 16
"""Kept connections to each backend."""
_FAILURES = frozenset((0, 502, 503, 504))
"""Statuses that are about the backend; 0: no response. Others, such as 500, may be about the
request: a client could pause the backend for all with requests that it cannot process."""


class Outgoing(NamedTuple):
    """A request as it is sent to a backend."""

    pool: Pool
    head: bytes
    parts: Sequence[bytes]
    """Of its body."""


class Backends:
    """Sends requests to external backends. `now` returns the time in seconds."""

    def __init__(
        self,
        guard: AddressGuard,
        secrets: BackendSecrets,
        resolver: Resolver,
        dial: Dial,
        now: Callable[[], float],
    ) -> None:
        self.secrets = secrets
        self._guard = guard
        self._resolver = resolver
        self._dial = dial
        self._now = now
        self._connect_seconds = 5.0
        self._pools: dict[Backend, Pool] = {}
        self._health: dict[str, BackendHealth] = {}
        self._responses = Counter[tuple[str, str]]()
        self.models: frozenset[str] = frozenset()
        """The names of their models."""

    def set(self, backends: Iterable[Backend], connect_seconds: float) -> None:
        """Set the backends. Connections to all others are closed when they are not in use."""
        backends = tuple(backends)
        if connect_seconds != self._connect_seconds:
            self._connect_seconds = connect_seconds
            self._close_except(())
        self._close_except(backends)
        before = self._health
        self._health = {each.name: before.get(each.name) or BackendHealth() for each in backends}
        self.models = frozenset(backend_models(backends))
        for name, code in [*self._responses]:
            if name not in self._health:
                del self._responses[name, code]

    def pause(self, name: str) -> float:
        """Return for how many seconds a backend gets no requests because it failed; 0: it does."""
        health = self._health.get(name)
        return health.pause(self._now()) if health else 0.0

    def record(self, name: str, status: int) -> None:
        """Record the status of a backend's response; 0: there was none."""
        health = self._health.get(name)
        if health is None:
            return
        self._responses[name, str(status or "none")] += 1
        if status in _FAILURES:
            health.failed(self._now())
        elif status < 500:
            health.succeeded()

    def metrics(self, prefix: str) -> Iterator[Metric]:
        """Yield the metrics of all backends."""
        responses = CounterMetricFamily(
            f"{prefix}_backend_responses",
            "Responses of external backends, by the status code (none: no response).",
            labels=["backend", "code"],
        )
        for labels, count in self._responses.items():
            responses.add_metric(labels, count)
        yield responses
        paused = GaugeMetricFamily(
            f"{prefix}_backend_paused",
            "1 while a backend gets no requests because it failed several times in a row, else 0.",
            labels=["backend"],
        )
        for name in self._health:
            paused.add_metric([name], self.pause(name) > 0)
        yield paused

    async def prepare(self, message: Request, model: BackendModel, lock: asyncio.Lock) -> Outgoing:
        """Return what is to be sent to the backend of a model. Raises HttpError.

        `lock`: held while there is a copy of the body.
        """
        backend = model.backend
        requests.check_path(message, backend)
        requests.check_hops(message)
        pause = self.pause(backend.name)
        if pause:
            raise HttpError(
                503,
                "backend_paused",
                f"backend {backend.name} has failed several times in a row, and gets no requests "
                "for some seconds",
                retry_after=pause,
            )
        key = self.secrets.key(backend)
        if backend.has_key and key is None:
            raise HttpError(
                503,
                "backend_key_missing",
                f"the gateway has no API key for backend {backend.name}: its secretRef names a "
                "Secret that is missing, not mounted yet, or whose entry `hosts` does not list "
                "the host; see the gateway's log",
                retry_after=5,
            )
        parts, size = await requests.with_model(message, model.upstream_name, lock)
        head = requests.encode_head(message, backend, key, size)
        return Outgoing(self._pool(backend), head, parts)

    def _pool(self, backend: Backend) -> Pool:
        pool = self._pools.get(backend)
        if pool is None:

            async def opener(
                factory: Callable[[], UpstreamConnection],
            ) -> UpstreamConnection:
                context = await self.secrets.context(backend) if backend.tls else None
                return await connect(
                    factory, backend, context, self._guard, self._resolver.resolve, self._dial
                )

            pool = self._pools[backend] = Pool(
                backend.host,
                backend.port,
                max_idle=_MAX_IDLE,
                connect_seconds=self._connect_seconds,
                opener=opener,
            )
        return pool

    async def close(self) -> None:
        """Close all connections that are not in use."""
        self._close_except(())
        await self._resolver.close()

    def _close_except(self, kept: Iterable[Backend]) -> None:
        for backend in self._pools.keys() - set(kept):
            self._pools.pop(backend).close()


def public_backends(now: Callable[[], float]) -> Backends:
    """Return backends without secrets, at public addresses."""
    return Backends(AddressGuard(), BackendSecrets(None), Resolver(), dial, now)
