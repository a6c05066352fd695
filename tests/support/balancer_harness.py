"""A complete balancer in this process, in front of fake llama-servers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fake_llama import FakeLlama
from raw_http import RawClient, Response, get
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.primed_prompts import SpecPrompt
from slotkeeper.backoff import Backoff
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.admin.server import Admin
from slotkeeper.balancer.local_responses import Model
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.prompts.context import PromptTimings
from slotkeeper.balancer.proxy.optional_features import prime_replicas, report_speculation
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.upstream.replicas import ReplicaTimeouts
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.scheduling import AffinityLimits, Dispatcher, QueueLimits, RunningLimits
from slotkeeper.wire.limits import Limits, metrics_port_limits
from slotkeeper.wire.server import Server
from wait_until import until

DEFAULT_AFFINITY = AffinityLimits()
FAST_TIMEOUTS = ReplicaTimeouts(
    join=Backoff(0.002, 0.01),
    response=1,
    release_poll=Backoff(0.001, 0.002),
    slot_release=30,
    ejection=Backoff(0.002, 0.02),
    ending=0.02,
    restarted=0.1,
)
FAST_PROMPT_TIMINGS = PromptTimings(
    join=Backoff(0.002, 0.01), deferred=0.005, poll=0.005, drained=0.002, done=(0.0, 0.01, 0.05)
)
MIN_TOKENS = 128
TEST_SECONDS = 20


@dataclass
class Balancer:
    """The parts, the ports, and what was logged."""

    proxy: Proxy
    client_server: Server
    metrics_server: Server
    port: int
    metrics_port: int
    admin: Admin
    access: RequestAccess
    log_stream: io.StringIO
    _clients: list[RawClient] = field(default_factory=list)

    @property
    def dispatcher(self) -> Dispatcher[Any]:
        return self.proxy.dispatcher

    async def connect(self) -> RawClient:
        """Connect a client. It is closed with the balancer at the latest."""
        self._clients.append(await RawClient.connect(self.port))
        return self._clients[-1]

    async def request(self, request: bytes) -> Response:
        """Send one request on a connection of its own."""
        async with await self.connect() as client:
            return await client.request(request)

    async def start_request(self, request: bytes) -> RawClient:
        """Send a request; return its client when the request is queued or dispatched."""
        before = len(self.proxy.active)
        client = await self.connect()
        await client.send(request)
        await until(lambda: len(self.proxy.active) > before)
        return client

    async def admin_request(self, path: str) -> Response:
        """Get a page of the metrics port."""
        async with await RawClient.connect(self.metrics_port) as client:
            return await client.request(get(path))

    async def admin_json(self, path: str) -> Any:
        return json.loads((await self.admin_request(path)).body)

    def terminate(self, leaving: FakeLlama, *others: FakeLlama) -> None:
        """Report that the pod of a replica is being deleted."""
        targets = {leaving.name: False, **{other.name: True for other in others}}
        self.proxy.set_replicas(targets, [leaving.name])

    async def wait_idle(self) -> None:
        """Wait until no request is active and no slot is busy."""
        await until(lambda: not self.proxy.active and self.dispatcher.busy_slots == 0)

    def access_log(self) -> list[dict[str, Any]]:
        self.proxy._request_log.log.flush()
        return [json.loads(line) for line in self.log_stream.getvalue().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 if there is none."""
        value = self.proxy.metrics._registry.get_sample_value(f"slotkeeper_balancer_{name}", labels)
        return value or 0.0

    async def close(self) -> None:
        await self.proxy.close()
        for server in (self.client_server, self.metrics_server):
            await server.close()
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def run_balancer(
    *replicas: FakeLlama,
    slots: int | None = None,
    queue_limits: QueueLimits | None = None,
    affinity: AffinityLimits | None = DEFAULT_AFFINITY,
    max_priority: int = 0,
    rules: AccessRules | None = None,
    keys: ApiKeys | None = None,
    running_limits: RunningLimits | None = None,
    limits: Limits | None = None,
    timeouts: ReplicaTimeouts = FAST_TIMEOUTS,
    heartbeat_seconds: float = 0,
    prompt_files: int | None = None,
    speculative: bool = False,
    prompt_timings: PromptTimings = FAST_PROMPT_TIMINGS,
    priming: PrimingOptions | None = None,
    primed: Sequence[SpecPrompt] = (),
    test_seconds: float = TEST_SECONDS,
) -> AsyncIterator[Balancer]:
    """Run a balancer. Its replicas are ready unless they are loading.

    `prompt_files`: the port of their agents.
    """
    loop = asyncio.get_running_loop()
    log_stream = io.StringIO()
    dispatcher: Dispatcher[Any] = Dispatcher(
        queue_limits or QueueLimits(), affinity, running_limits=running_limits
    )
    access = RequestAccess(rules or AccessRules(max_priority), b"salt", keys)
    proxy = Proxy(
        dispatcher,
        access,
        AccessLog(log_stream, loop.call_later, lambda: 1_700_000_000.0),
        Model("tiny", 1_700_000_000),
        slots=slots,
        timeouts=timeouts,
    )
    proxy.keepalive.seconds = heartbeat_seconds
    if prompt_files is not None:
        proxy.keep_prompts(prompt_files, MIN_TOKENS, prompt_timings)
    if priming:
        prime_replicas(proxy, priming).set_inline(primed)
    if speculative:
        report_speculation(proxy)
    admin = Admin(proxy)
    client_server = Server(proxy.handle, limits, proxy.body_admission)
    proxy.metrics.add_listener(client_server.listener)
    metrics_server = Server(admin.handle, metrics_port_limits())
    _, port = await client_server.listen("127.0.0.1", 0)
    _, metrics_port = await metrics_server.listen("127.0.0.1", 0)
    balancer = Balancer(
        proxy, client_server, metrics_server, port, metrics_port, admin, access, log_stream
    )
    proxy.set_replicas({replica.name: True for replica in replicas})
    ready = sum(not replica.loading for replica in replicas)
    try:
        await until(lambda: sum(1 for _ in dispatcher.ready_replicas()) == ready)
        async with asyncio.timeout(test_seconds):
            yield balancer
    finally:
        # Also after a failed test, whose error would else be lost among those of open sockets.
        await balancer.close()
