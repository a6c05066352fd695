"""The `slotkeeper balancer` process: puts the parts together, starts and ends them."""

import asyncio
import gc
import logging
import os
import signal
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
from slotkeeper.balancer.election.election import LeaderElection
from slotkeeper.balancer.election.lease import Peer
from slotkeeper.balancer.options import Options, parse
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.responses import Model
from slotkeeper.balancer.upstream.endpoints import replicas_of
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys
from slotkeeper.flags import Address
from slotkeeper.scheduling import Dispatcher
from slotkeeper.wire.server import Server

ENDING = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("slotkeeper.balancer")


def main(argv: Sequence[str]) -> int:
    """Balance until SIGTERM or SIGINT; 0 after an orderly end, 1 where it could not start."""
    options = parse(argv)
    # On the stream of the access log, so that the lines are in order.
    logs.configure(options.log_format, options.log_level, stream=sys.stdout)
    try:
        uvloop.run(balance(options))
    except OSError as error:
        _log.error("cannot start: %s", error)
        return 1
    # The interpreter ends with the default: whoever tells it twice would make a failure of it.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    return 0


async def balance(options: Options) -> None:
    """Serve until a signal says to end.

    Raises OSError where an address cannot be listened on, or the API keys cannot be read.
    """
    loop = asyncio.get_running_loop()
    ending = _signals(loop)
    salt = os.urandom(16)
    keys = ApiKeys(salt) if options.api_keys else None
    folder = ApiKeyFolder(options.api_keys, keys) if options.api_keys and keys is not None else None
    if folder:
        folder.load()
    dispatcher: Dispatcher[Any] = Dispatcher(options.queue_limits, options.affinity)
    proxy = Proxy(
        dispatcher,
        RequestAccess(options.rules, salt, keys),
        AccessLog(sys.stdout if options.access_log else None, loop.call_later, time.time),
        Model(options.model, int(time.time())),
        slots=options.slots,
    )
    proxy.keepalive.seconds = options.heartbeat_seconds
    admin = Admin(proxy)
    clients = Server(proxy.handle, options.limits, proxy.body_admission)
    metrics = Server(admin.handle)
    bound = await clients.listen(*options.listen), await metrics.listen(*options.metrics)
    _log.info("listening on %s:%d, metrics on %s:%d", *bound[0], *bound[1])
    async with asyncio.TaskGroup() as beside:
        followers = [beside.create_task(_follow(options, proxy, admin, bound))]
        if folder:
            followers.append(beside.create_task(folder.watch()))
        # What there is now lives as long as the process: no collection looks at it again.
        gc.collect()
        gc.freeze()
        polite = await ending
        admin.ending = True
        _log.info("ending: %d requests in progress", len(proxy.active))
        if admin.election:
            admin.election.end()
        if polite:
            await asyncio.sleep(options.shutdown_delay_seconds)
        deadline = loop.time() + options.drain_seconds
        if admin.election:
            await admin.election.wait_handover(options.drain_seconds)
        clients.drain()
        cut = await proxy.drain(max(0, deadline - loop.time()))
        if admin.election:
            await admin.election.release()
        for follower in followers:
            follower.cancel()
    _log.log(logging.WARNING if cut else logging.INFO, "ended: %d requests cut", cut)
    await proxy.close()
    await clients.close()
    await metrics.close()


async def _follow(options: Options, proxy: Proxy, admin: Admin, bound: Sequence[Address]) -> None:
    """Keep the replicas, and who hands out their slots, as they are. `bound`: the two addresses."""
    if options.endpoints is None:
        proxy.set_replicas(dict.fromkeys(options.replicas, True))
        admin.ready = True
        return
    # The Kubernetes client is slow to import and only needed here.
    from slotkeeper.kube.client import ApiCluster  # noqa: PLC0415

    async with (
        await ApiCluster.connect(BALANCER_FIELD_MANAGER) as cluster,
        asyncio.TaskGroup() as beside,
    ):
        if options.lease:
            clients, metrics = (_join(options.advertise, port) for _, port in bound)
            me = Peer(options.identity, clients, metrics)
            admin.election = LeaderElection(cluster, options.lease, me, proxy, _wall)
        known = False
        async for replicas in replicas_of(cluster, *options.endpoints):
            proxy.set_replicas(replicas)
            if not known:
                admin.ready = known = True
                if admin.election:
                    beside.create_task(admin.election.run())


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _wall() -> datetime:
    return datetime.now(UTC)


def _signals(loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
    ending: asyncio.Future[bool] = loop.create_future()

    def end(polite: bool) -> None:
        if not ending.done():
            ending.set_result(polite)

    def heard(number: int, _: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(end, number == signal.SIGTERM)

    # Not through the loop: its handlers go with it.
    for number in ENDING:
        signal.signal(number, heard)
    return ending
