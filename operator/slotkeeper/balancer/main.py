"""The `slotkeeper balancer` process: creates the parts, runs them and shuts them down."""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import uvloop

from slotkeeper import logs
from slotkeeper.api.group import BALANCER_FIELD_MANAGER
from slotkeeper.balancer.access import RequestAccess
from slotkeeper.balancer.admin.server import Admin
from slotkeeper.balancer.local_responses import Model
from slotkeeper.balancer.options import Options, parse
from slotkeeper.balancer.priming.folder import PromptFolder
from slotkeeper.balancer.proxy.optional_features import prime_replicas, report_speculation
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys
from slotkeeper.error_text import describe
from slotkeeper.process import ignore_shutdown_signals, raise_file_limit, shutdown_signal
from slotkeeper.scheduling import Dispatcher
from slotkeeper.wire.limits import metrics_port_limits
from slotkeeper.wire.server import Server
from slotkeeper.wire.sockets import join

_log = logging.getLogger("slotkeeper.balancer")


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns 0 after a shutdown, 1 if it could not start."""
    options = parse(argv)
    # To the stream of the access log, so that the lines of both are in order.
    logs.configure(options.log_format, options.log_level, stream=sys.stdout)
    try:
        uvloop.run(balance(options))
    except OSError as error:
        _log.error("cannot start: %s", describe(error))
        return 1
    ignore_shutdown_signals()
    return 0


async def balance(options: Options) -> None:
    """Serve until a shutdown signal.

    Raises OSError if it cannot listen on an address, or cannot read the API keys.
    """
    loop = asyncio.get_running_loop()
    shutdown = shutdown_signal(loop)
    raise_file_limit(options.limits.max_connections)
    salt = os.urandom(16)
    keys: ApiKeys | None = None
    key_folder: ApiKeyFolder | None = None
    if options.api_keys:
        keys = ApiKeys(salt)
        named = set(options.rules.max_priorities)
        if options.running_limits:
            named.update(options.running_limits.by_key)
        key_folder = ApiKeyFolder(options.api_keys, keys, named)
        key_folder.load()
    dispatcher: Dispatcher[Any] = Dispatcher(
        options.queue_limits,
        options.affinity,
        running_limits=options.running_limits,
        reserved_slots=options.reserved_slots,
    )
    access = RequestAccess(options.rules, salt, keys)
    # Until the rules in force are known: this may be a restarted balancer of an older spec.
    access.outdated = options.role is not None
    proxy = Proxy(
        dispatcher,
        access,
        AccessLog(sys.stdout if options.access_log else None, loop.call_later, time.time),
        Model(options.model, int(time.time())),
        slots=options.slots,
    )
    proxy.keepalive.seconds = options.heartbeat_seconds
    proxy.inspection.prompt_limits = options.prompt_limits
    prime_folder = await _add_features(proxy, options)
    admin = Admin(proxy)
    clients = Server(proxy.handle, options.limits, proxy.body_admission)
    proxy.metrics.add_listener(clients.listener)
    metrics = Server(admin.handle, metrics_port_limits())
    addresses = await clients.listen(*options.listen), await metrics.listen(*options.metrics)
    _log.info("listening on %s, metrics on %s", *(join(*address) for address in addresses))
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(_follow_cluster(options, proxy, admin, access))]
        if key_folder:
            background.append(tasks.create_task(key_folder.watch()))
        if prime_folder:
            background.append(tasks.create_task(prime_folder.watch()))
        # Objects from startup live as long as the process: keep the collector from scanning them.
        gc.collect()
        gc.freeze()
        graceful = await shutdown
        aborted = await _shut_down(options, proxy, admin, clients, graceful=graceful)
        for task in background:
            task.cancel()
    level = logging.WARNING if aborted else logging.INFO
    _log.log(level, "shutdown complete: %d requests aborted", aborted)
    await proxy.close()
    await clients.close()
    await metrics.close()


async def _add_features(proxy: Proxy, options: Options) -> PromptFolder | None:
    """Add the features that are off by default; return the folder that is to be watched."""
    if options.speculative:
        report_speculation(proxy)
    proxy.crash_guard.has_workers = options.workers
    if options.prompt_files is not None:
        proxy.keep_prompts(options.prompt_files, options.prompt_min_tokens)
    if options.priming is None:
        return None
    priming = prime_replicas(proxy, options.priming)
    if options.prime_folder is None:
        return None
    folder = PromptFolder(options.prime_folder, priming.set_mounted)
    await folder.check()
    return folder


async def _follow_cluster(
    options: Options, proxy: Proxy, admin: Admin, access: RequestAccess
) -> None:
    """Keep the proxy's replicas, its rules and its role up to date."""
    if options.endpoints is None:
        proxy.set_replicas(dict.fromkeys(options.replicas, True))
        admin.ready = True
        return
    # The Kubernetes client is slow to import and only needed here.
    from slotkeeper.balancer.cluster import ClusterFollower  # noqa: PLC0415
    from slotkeeper.kube.client import ApiCluster  # noqa: PLC0415

    async with await ApiCluster.connect(BALANCER_FIELD_MANAGER) as cluster:
        await ClusterFollower(cluster, options, proxy, admin, access, _wall).run()


async def _shut_down(
    options: Options, proxy: Proxy, admin: Admin, clients: Server, *, graceful: bool
) -> int:
    """Hand over and drain; return the number of requests still active after that."""
    loop = asyncio.get_running_loop()
    admin.shutting_down = True
    _log.info("shutting down: %d active requests", len(proxy.active))
    if admin.election:
        admin.election.shut_down()
    if graceful:
        await asyncio.sleep(options.shutdown_delay_seconds)
    deadline = loop.time() + options.drain_timeout
    if admin.election:
        await admin.election.wait_handover(options.drain_timeout)
    clients.drain()
    active = await proxy.drain(max(0, deadline - loop.time()))
    if admin.election:
        await admin.election.release()
    return active


def _wall() -> datetime:
    return datetime.now(UTC)
