"""A whole balancer in this process, in front of fake llama-servers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fake_llama import FakeLlama
from raw_http import RawClient, Response
from slotkeeper.backoff import Backoff
from slotkeeper.balancer.access import AccessRules, RequestAccess
from slotkeeper.balancer.admin.server import Admin
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.responses import Model
from slotkeeper.balancer.upstream.replicas import ReplicaTimeouts
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.scheduling import AffinityLimits, Dispatcher, QueueLimits
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.server import Server
from wait_until import until

WARM = AffinityLimits()
QUICK = ReplicaTimeouts(
    join=Backoff(0.002, 0.01),
    response=1,
    release_poll=Backoff(0.001, 0.002),
    slot_release=30,
    ejection=Backoff(0.002, 0.02),
)


@dataclass
class Balancer:
    """The parts, the ports, and what was logged."""

    proxy: Proxy
    clients: Server
    metrics: Server
    port: int
    metrics_port: int
    admin: Admin
    log: io.StringIO
    opened: list[RawClient] = field(default_factory=list)

    @property
    def dispatcher(self) -> Dispatcher[Any]:
        return self.proxy.dispatcher

    async def client(self) -> RawClient:
        self.opened.append(await RawClient.connect(self.port))
        return self.opened[-1]

    async def ask(self, request: bytes) -> Response:
        """One request on a connection of its own."""
        async with await self.client() as client:
            return await client.ask(request)

    async def start(self, request: bytes) -> RawClient:
        """A client whose request is in the balancer: running or waiting."""
        before = len(self.proxy.active)
        client = await self.client()
        await client.send(request)
        await until(lambda: len(self.proxy.active) > before)
        return client

    async def at_rest(self) -> None:
        """Nothing is waiting and no slot is held."""
        await until(lambda: not self.proxy.active and self.dispatcher.busy_slots == 0)

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        self.proxy._request_log.log.flush()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value; 0 where there is none."""
        value = self.proxy.metrics._registry.get_sample_value(f"slotkeeper_balancer_{name}", labels)
        return value or 0.0


@asynccontextmanager
async def balancer(
    *replicas: FakeLlama,
    slots: int | None = None,
    bounds: QueueLimits | None = None,
    affinity: AffinityLimits | None = WARM,
    max_priority: int = 0,
    rules: AccessRules | None = None,
    keys: ApiKeys | None = None,
    limits: Limits | None = None,
    patience: ReplicaTimeouts = QUICK,
    heartbeat_seconds: float = 0,
) -> AsyncIterator[Balancer]:
    """A balancer whose replicas, those that are not loading, have joined."""
    loop = asyncio.get_running_loop()
    log = io.StringIO()
    dispatcher: Dispatcher[Any] = Dispatcher(bounds or QueueLimits(), affinity)
    access = AccessLog(log, loop.call_later, lambda: 1_700_000_000.0)
    proxy = Proxy(
        dispatcher,
        RequestAccess(rules or AccessRules(max_priority), b"salt", keys),
        access,
        Model("tiny", 1_700_000_000),
        slots=slots,
        timeouts=patience,
    )
    proxy.keepalive.seconds = heartbeat_seconds
    admin = Admin(proxy)
    clients = Server(proxy.handle, limits, proxy.body_admission)
    metrics = Server(admin.handle)
    _, port = await clients.listen("127.0.0.1", 0)
    _, metrics_port = await metrics.listen("127.0.0.1", 0)
    made = Balancer(proxy, clients, metrics, port, metrics_port, admin, log)
    proxy.set_replicas({replica.name: True for replica in replicas})
    well = sum(not replica.loading for replica in replicas)
    try:
        await until(lambda: sum(1 for _ in dispatcher.ready_replicas()) == well)
        async with asyncio.timeout(20):
            yield made
    finally:
        # Also after a test that failed: uvloop does not end while something listens.
        await proxy.close()
        for client in made.opened:
            await client.close()
        await clients.close()
        await metrics.close()
