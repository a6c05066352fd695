"""The `slotkeeper gateway` process: creates the parts, runs them and shuts them down."""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import uvloop

from slotkeeper import logs
from slotkeeper.address_guard import AddressGuard, network
from slotkeeper.api.group import GATEWAY_FIELD_MANAGER
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys
from slotkeeper.error_text import describe
from slotkeeper.gateway.admin import Admin
from slotkeeper.gateway.backends.connect import Resolver, dial
from slotkeeper.gateway.backends.registry import Backends
from slotkeeper.gateway.backends.secrets import BackendSecrets
from slotkeeper.gateway.config import GatewayConfig
from slotkeeper.gateway.options import Options, parse
from slotkeeper.gateway.proxy import Gateway
from slotkeeper.gateway.tls import TlsFolder
from slotkeeper.gateway.watch import ClusterFollower
from slotkeeper.kube.client import ApiCluster
from slotkeeper.process import ignore_shutdown_signals, raise_file_limit, shutdown_signal
from slotkeeper.wire.limits import metrics_port_limits
from slotkeeper.wire.server import Server
from slotkeeper.wire.sockets import join

_log = logging.getLogger("slotkeeper.gateway")

_SERVER_PORT = 80


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns 0 after a shutdown, 1 if it could not start."""
    options = parse(argv)
    # To the stream of the access log, so that the lines of both are in order.
    logs.configure(options.log_format, options.log_level, stream=sys.stdout)
    try:
        uvloop.run(serve(options))
    except OSError as error:
        _log.error("cannot start: %s", describe(error))
        return 1
    ignore_shutdown_signals()
    return 0


async def serve(options: Options) -> None:
    """Serve until a shutdown signal.

    Raises OSError if it cannot listen on an address, or cannot read the API keys or the
    certificate.
    """
    loop = asyncio.get_running_loop()
    shutdown = shutdown_signal(loop)
    raise_file_limit(options.limits.max_connections)
    keys: ApiKeys | None = None
    key_folder: ApiKeyFolder | None = None
    if options.api_keys:
        keys = ApiKeys(os.urandom(16))
        key_folder = ApiKeyFolder(options.api_keys, keys)
        key_folder.load()
    tls: TlsFolder | None = None
    if options.tls:
        tls = TlsFolder(options.tls)
        tls.load()
    namespace, name = options.gateway
    backends = Backends(
        AddressGuard(namespace, tuple(map(network, options.backend_cidrs))),
        BackendSecrets(options.backends),
        Resolver(),
        dial,
        loop.time,
    )
    gateway = Gateway(
        lambda server: (f"{server}.{namespace}.svc", _SERVER_PORT),
        AccessLog(sys.stdout if options.access_log else None, loop.call_later, time.time),
        keys,
        name=f"{namespace}/{name}",
        wall=time.time,
        backends=backends,
    )
    gateway.usage_log.log = AccessLog(sys.stdout, loop.call_later, time.time)
    admin = Admin(gateway)
    clients = Server(gateway.handle, options.limits, gateway.body_admission)
    gateway.metrics.add_listener(clients.listener)
    metrics = Server(admin.handle, metrics_port_limits())
    addresses = (
        await clients.listen(*options.listen, tls.context if tls else None),
        await metrics.listen(*options.metrics),
    )
    _log.info("listening on %s, metrics on %s", *(join(*address) for address in addresses))

    def on_config(config: GatewayConfig) -> None:
        set_body_limit(clients, options, config)
        if key_folder:
            key_folder.set_named(config.named_keys)

    follower = ClusterFollower(gateway, on_config)
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(_follow_cluster(options, follower))]
        background.append(tasks.create_task(gateway.entries.refresh()))
        background.append(tasks.create_task(backends.secrets.watch()))
        background += [tasks.create_task(each.watch()) for each in (key_folder, tls) if each]
        # Objects from startup live as long as the process: keep the collector from scanning them.
        gc.collect()
        gc.freeze()
        graceful = await shutdown
        aborted = await _shut_down(options, gateway, admin, clients, graceful=graceful)
        for task in background:
            task.cancel()
    level = logging.WARNING if aborted else logging.INFO
    _log.log(level, "shutdown complete: %d requests aborted", aborted)
    await gateway.close()
    await clients.close()
    await metrics.close()


def set_body_limit(clients: Server, options: Options, config: GatewayConfig) -> None:
    """Set the maximum size of a body for new connections; at most what there is memory for."""
    limits = options.limits
    maximum = config.max_body_bytes or limits.max_body
    clients.listener.limits = replace(limits, max_body=min(maximum, limits.max_buffered))


async def _follow_cluster(options: Options, follower: ClusterFollower) -> None:
    async with await ApiCluster.connect(GATEWAY_FIELD_MANAGER) as cluster:
        await follower.run(cluster, *options.gateway)


async def _shut_down(
    options: Options, gateway: Gateway, admin: Admin, clients: Server, *, graceful: bool
) -> int:
    """Drain; return the number of requests still active after that."""
    admin.shutting_down = True
    _log.info("shutting down: %d active requests", len(gateway.active))
    if graceful:
        await asyncio.sleep(options.shutdown_delay_seconds)
    clients.drain()
    return await gateway.drain(options.drain_timeout)
