"""The `slotkeeper batches` process: creates the parts, runs them and shuts them down."""

import asyncio
import gc
import logging
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence

import uvloop

from slotkeeper import logs
from slotkeeper.batches.admin import Admin
from slotkeeper.batches.api import MAX_BODY, Api, ApiLimits
from slotkeeper.batches.client import GatewayClient, KeyRing
from slotkeeper.batches.disk import Disk
from slotkeeper.batches.metrics import Metrics
from slotkeeper.batches.options import Options, parse
from slotkeeper.batches.store import Store
from slotkeeper.batches.worker import Settings, Worker
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeyFolder
from slotkeeper.edge.body_admission import BodyAdmission
from slotkeeper.edge.cors import ANY_ORIGIN
from slotkeeper.edge.uploads import is_upload
from slotkeeper.error_text import describe
from slotkeeper.process import ignore_shutdown_signals, shutdown_signal
from slotkeeper.wire.limits import MIB, Limits, metrics_port_limits
from slotkeeper.wire.server import Server
from slotkeeper.wire.sockets import join

_log = logging.getLogger("slotkeeper.batches")

_HOUSEKEEPING_SECONDS = 10.0


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns 0 after a shutdown, 1 if it could not start."""
    options = parse(argv)
    logs.configure(options.log_format, options.log_level, stream=sys.stdout)
    try:
        uvloop.run(serve(options))
    except (OSError, sqlite3.Error) as error:
        _log.error("cannot start: %s", describe(error))
        return 1
    ignore_shutdown_signals()
    return 0


async def serve(options: Options) -> None:
    """Serve until a shutdown signal.

    Raises OSError or sqlite3.Error if it cannot listen on an address, or cannot read the API keys
    or the certificate, or cannot use the data.
    """
    loop = asyncio.get_running_loop()
    shutdown = shutdown_signal(loop)
    keys: KeyRing | None = None
    key_folder: ApiKeyFolder | None = None
    if options.api_keys:
        keys = KeyRing(os.urandom(16))
        key_folder = ApiKeyFolder(options.api_keys, keys)
        key_folder.load()
    client = GatewayClient(options.gateway, options.certificate)
    disk = Disk(await asyncio.to_thread(Store, options.data, options.max_storage_bytes))
    metrics = Metrics()
    worker = Worker(
        disk,
        client,
        lambda: None if keys is None else keys.secrets,
        Settings(options.concurrency, options.max_line, options.retention_seconds),
        metrics,
        time.time,
    )
    metrics.running = lambda: worker.running
    api = Api(
        disk,
        worker,
        keys,
        ApiLimits(options.max_file_bytes, options.retention_seconds),
        AccessLog(sys.stdout if options.access_log else None, loop.call_later, time.time),
        time.time,
    )
    admin = Admin(metrics)
    limits = Limits(max_body=MAX_BODY, max_buffered=64 * MIB, max_connections=1024)
    admission = BodyAdmission(api.owner, api.log_incomplete, ANY_ORIGIN, is_upload)
    clients = Server(api.handle, limits, admission)
    metrics_server = Server(admin.handle, metrics_port_limits())
    addresses = (
        await clients.listen(*options.listen),
        await metrics_server.listen(*options.metrics),
    )
    _log.info("listening on %s, metrics on %s", *(join(*address) for address in addresses))
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(worker.run())]
        background.append(tasks.create_task(_keep_house(options, disk, metrics, client)))
        if key_folder:
            background.append(tasks.create_task(key_folder.watch()))
        admin.ready = True
        gc.collect()
        gc.freeze()
        await shutdown
        # Nothing is lost that a restart would not send again: there is no need to wait.
        admin.ready = False
        _log.info("shutting down: %d requests of batches in progress", worker.running)
        for task in background:
            task.cancel()
    await clients.close()
    await api.close()
    await metrics_server.close()
    client.close()
    await asyncio.to_thread(disk.close)
    _log.info("shutdown complete")


async def _keep_house(
    options: Options, disk: Disk, metrics: Metrics, client: GatewayClient
) -> None:
    """Delete what has expired, and measure."""

    def expire(store: Store) -> int:
        now = int(time.time())
        return store.expire(now, now - options.retention_seconds)

    while True:
        try:
            await disk.run(expire)
            metrics.statuses = await disk.run(lambda store: store.count_batches())
            metrics.stored_bytes = await disk.run(lambda store: store.used_bytes())
            metrics.free_bytes = shutil.disk_usage(options.data).free
        except (OSError, sqlite3.Error) as error:
            _log.warning("cannot delete what has expired: %s", describe(error))
        client.reload()
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)
