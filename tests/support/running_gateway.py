"""A complete gateway in this process, in front of fake llama-servers or balancers."""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from raw_http import RawClient, Response, get
from slotkeeper.address_guard import AddressGuard, network
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.gateway.admin import Admin
from slotkeeper.gateway.backends import connect
from slotkeeper.gateway.backends.registry import Backends
from slotkeeper.gateway.backends.secrets import BackendSecrets
from slotkeeper.gateway.proxy import Gateway
from slotkeeper.gateway.watch import ClusterFollower
from slotkeeper.kube.cluster import Manifest
from slotkeeper.wire.client import UpstreamConnection
from slotkeeper.wire.limits import Limits, metrics_port_limits
from slotkeeper.wire.server import Server
from wait_until import until

KEYS = {"ann": b"key-of-ann", "bob": b"key-of-bob"}
ANN = "Authorization: Bearer key-of-ann"
BOB = "X-Api-Key: key-of-bob"


class Upstream(Protocol):
    """A fake server or a balancer."""

    port: int


def status(ready: str, reason: str, message: str = "", **fields: Any) -> Manifest:
    """Return a server's status with this condition Ready."""
    condition = {"type": "Ready", "status": ready, "reason": reason, "message": message}
    return {"conditions": [condition], **fields}


READY = status("True", "Serving", "serving at http://chat.default.svc", readyReplicas=1)


def server_manifest(
    name: str, *, alias: str = "", state: Manifest | None = None, **metadata: Any
) -> Manifest:
    """Return a LlamaServer as JSON, by default one that is ready."""
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": str((alias, state, metadata)),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            **metadata,
        },
        "spec": {"model": {"alias": alias} if alias else {}},
        "status": READY if state is None else state,
    }


PUBLIC = "8.8.8.8"
"""The address of external backends in tests."""


@dataclass
class Network:
    """What external backends are reached through: names, addresses and the servers behind them."""

    names: dict[str, list[str]] = field(default_factory=dict)
    """Addresses by name; PUBLIC for all others."""
    servers: dict[tuple[str, int], Upstream] = field(default_factory=dict)
    """By address and port."""
    lookups: list[str] = field(default_factory=list)
    dialed: list[tuple[str, int]] = field(default_factory=list)
    allowed: tuple[str, ...] = ()

    async def look_up(self, host: str, port: int) -> list[str]:  # noqa: ARG002
        self.lookups.append(host)
        return self.names.get(host, [PUBLIC])

    async def dial(
        self,
        factory: Callable[[], UpstreamConnection],
        address: str,
        port: int,
        *,
        context: ssl.SSLContext | None,
        server_name: str,
    ) -> UpstreamConnection:
        self.dialed.append((address, port))
        server = self.servers.get((address, port))
        if server is None:
            raise ConnectionRefusedError
        return await connect.dial(
            factory, "127.0.0.1", server.port, context=context, server_name=server_name
        )

    def backends(self, secrets: BackendSecrets) -> Backends:
        guard = AddressGuard("default", tuple(map(network, self.allowed)))
        now = asyncio.get_running_loop().time
        return Backends(guard, secrets, connect.Resolver(self.look_up), self.dial, now)


@dataclass
class RunningGateway:
    """The parts, the ports, and what was logged."""

    gateway: Gateway
    follower: ClusterFollower
    admin: Admin
    client_server: Server
    metrics_server: Server
    port: int
    metrics_port: int
    upstreams: dict[str, Upstream]
    log_stream: io.StringIO
    usage_stream: io.StringIO
    _clients: list[RawClient] = field(default_factory=list)

    def configure(self, spec: Mapping[str, Any]) -> None:
        """Apply a spec of the LlamaGateway."""
        self.follower.apply_gateway({"metadata": {"name": "llm"}, "spec": dict(spec)})

    def set_servers(self, *servers: Manifest) -> None:
        """Apply LlamaServers at once."""
        self.follower.apply_servers({each["metadata"]["name"]: each for each in servers})
        self.follower._apply_servers()

    async def connect(self) -> RawClient:
        """Connect a client. It is closed with the gateway at the latest."""
        self._clients.append(await RawClient.connect(self.port))
        return self._clients[-1]

    async def request(self, request: bytes) -> Response:
        """Send one request on a connection of its own."""
        async with await self.connect() as client:
            return await client.request(request)

    async def start_request(self, request: bytes) -> RawClient:
        """Send a request; return its client when the request is forwarded."""
        before = len(self.gateway.active)
        client = await self.connect()
        await client.send(request)
        await until(lambda: len(self.gateway.active) > before)
        return client

    async def json(self, path: str, *headers: str) -> Any:
        """Get JSON from the clients' port."""
        return json.loads((await self.request(get(path, *headers))).body)

    async def admin_request(self, path: str) -> Response:
        """Get a page of the metrics port."""
        async with await RawClient.connect(self.metrics_port) as client:
            return await client.request(get(path))

    async def wait_idle(self) -> None:
        """Wait until no request is active."""
        await until(lambda: not self.gateway.active)

    def access_log(self) -> list[dict[str, Any]]:
        self.gateway._request_log.log.flush()
        return [json.loads(line) for line in self.log_stream.getvalue().splitlines()]

    def usage_log(self) -> list[dict[str, Any]]:
        self.gateway._request_log.flush()
        return [json.loads(line) for line in self.usage_stream.getvalue().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 if there is none."""
        registry = self.gateway.metrics._registry
        return registry.get_sample_value(f"slotkeeper_gateway_{name}", labels) or 0.0

    async def close(self) -> None:
        await self.gateway.close()
        for server in (self.client_server, self.metrics_server):
            await server.close()
        for client in self._clients:
            await client.close()


def two_keys() -> ApiKeys:
    keys = ApiKeys(b"salt")
    keys.replace(KEYS)
    return keys


@asynccontextmanager
async def run_gateway(
    spec: Mapping[str, Any] | None = None,
    *,
    keys: ApiKeys | None = None,
    limits: Limits | None = None,
    test_seconds: float = 20,
    net: Network | None = None,
    secrets: BackendSecrets | None = None,
    **upstreams: Upstream,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway with a ready server for each of `upstreams`.

    `test_seconds`: of the loop's clock, after which the test fails. `net` and `secrets`: of
    external backends.
    """
    loop = asyncio.get_running_loop()
    log_stream, usage_stream = io.StringIO(), io.StringIO()
    addresses: dict[str, Upstream] = dict(upstreams)
    gateway = Gateway(
        lambda server: ("127.0.0.1", addresses[server].port),
        AccessLog(log_stream, loop.call_later, lambda: 1_700_000_000.0),
        keys,
        name="default/llm",
        wall=lambda: 1_700_000_000.0,
        backends=(net or Network()).backends(secrets or BackendSecrets(None)),
    )
    gateway.usage_log.log = AccessLog(usage_stream, loop.call_later, lambda: 1_700_000_000.0)
    admin = Admin(gateway)
    client_server = Server(gateway.handle, limits, gateway.body_admission)
    gateway.metrics.add_listener(client_server.listener)
    metrics_server = Server(admin.handle, metrics_port_limits())
    _, port = await client_server.listen("127.0.0.1", 0)
    _, metrics_port = await metrics_server.listen("127.0.0.1", 0)
    running = RunningGateway(
        gateway,
        ClusterFollower(gateway),
        admin,
        client_server,
        metrics_server,
        port,
        metrics_port,
        addresses,
        log_stream,
        usage_stream,
    )
    running.configure({"replicas": 1, **(spec or {})})
    running.set_servers(*map(server_manifest, upstreams))
    try:
        async with asyncio.timeout(test_seconds):
            yield running
    finally:
        # Also after a failed test, whose error would else be lost among those of open sockets.
        await running.close()
