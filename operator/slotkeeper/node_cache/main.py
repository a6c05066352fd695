"""`slotkeeper node-cache`: its flags, and its only clocks."""

import argparse
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, start_http_server

from slotkeeper import flags, logs
from slotkeeper.api import quantity
from slotkeeper.error_text import describe
from slotkeeper.flags import NodeCacheFlags
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import ApiError
from slotkeeper.node_cache.agent import Agent, Node
from slotkeeper.node_cache.folder import Folder, give_to
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_cache.prompts import PromptFolders, PromptsRoot
from slotkeeper.node_folder import Limits
from slotkeeper.process import shutdown_signal
from slotkeeper.wire.sockets import available

USER = 65532
"""User of the pods of replicas, and of the agent."""

MAX_INTERVAL = 3600.0

PROMPTS_SECONDS = 60.0
"""Between two lists of the servers, while there are folders of prompts."""

_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the agent until SIGTERM or SIGINT (0)."""
    parser = _parser()
    options = parser.parse_args(argv)
    if bool(options.prompts_path) != bool(options.prompts_folder):
        parser.error("--prompts-path and --prompts-folder require each other")
    logs.configure(options.log_format, options.log_level)
    if options.prepare:
        give_to(options.folder, USER)
        return 0
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    shutdown = shutdown_signal(asyncio.get_running_loop())
    limits = Limits(options.size_limit, options.min_free_percent)
    metrics = Metrics(REGISTRY, limits)
    node = Node(options.node, options.path, options.namespace or [None])
    start_http_server(options.metrics[1], addr=available(options.metrics[0]))
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(Folder(options.folder))
        cluster = await opened.enter_async_context(await ApiCluster.connect())
        agent = Agent(folder, cluster, node, limits, metrics)
        running = [_repeat(options.interval, lambda: _sweep(agent), metrics)]
        if options.prompts_folder:
            root = opened.enter_context(PromptsRoot(options.prompts_folder))
            prompts = PromptFolders(root, cluster, options.prompts_path, node.namespaces, metrics)
            agent.create_prompts = prompts.create_for
            running.append(_repeat(PROMPTS_SECONDS, prompts.sweep, metrics))
        await agent.prepare_existing()
        running += map(agent.follow, node.namespaces)
        tasks = list(map(asyncio.ensure_future, running))
        ends: list[asyncio.Future[Any]] = [shutdown, *tasks]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                # None returns: an unexpected error ends the process, which is restarted.
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


async def _sweep(agent: Agent) -> None:
    await agent.sweep(time.monotonic(), time.time_ns())


async def _repeat(seconds: float, sweep: Callable[[], Awaitable[None]], metrics: Metrics) -> None:
    while True:
        try:
            await sweep()
        except (ApiError, OSError) as error:
            metrics.count_error()
            _log.warning("nothing was removed: %s", describe(error))
        await asyncio.sleep(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper node-cache",
        description="Keep the cache of models on one node: create the folders that its pods need, "
        "and remove the least recently used models that no pod uses, while they exceed the limit "
        "or the disk is nearly full.",
    )
    add = parser.add_argument
    add(
        NodeCacheFlags.PATH,
        required=True,
        metavar="PATH",
        help="path of the cache on the node, as in the hostPath volumes of pods",
    )
    add(
        NodeCacheFlags.FOLDER,
        type=Path,
        required=True,
        metavar="PATH",
        help="where it is mounted in this container",
    )
    add(
        NodeCacheFlags.PREPARE,
        action="store_true",
        help=f"only make {USER}, the user of all pods, the owner of the folder, and exit",
    )
    add(
        NodeCacheFlags.SIZE_LIMIT,
        type=quantity.bytes_argument,
        default="200Gi",
        metavar="QUANTITY",
        help="limit of all files (default: %(default)s)",
    )
    add(
        NodeCacheFlags.MIN_FREE_PERCENT,
        type=flags.percent,
        default=15,
        metavar="PERCENT",
        help="part of the disk that is left free (default: %(default)s)",
    )
    add(NodeCacheFlags.NODE, default="", metavar="NAME", help="name of this node")
    add(
        NodeCacheFlags.NAMESPACE,
        action="append",
        default=[],
        metavar="NAME",
        help="only pods of this namespace use the cache; repeatable (default: all)",
    )
    add(
        NodeCacheFlags.INTERVAL,
        type=_interval,
        default=5.0,
        metavar="SECONDS",
        help="time between two readings of the folder (default: %(default)g)",
    )
    add(
        NodeCacheFlags.METRICS,
        type=flags.address,
        default="[::]:9090",
        metavar="HOST:PORT",
        help="address of /metrics (default: %(default)s)",
    )
    add(
        NodeCacheFlags.PROMPTS_PATH,
        default="",
        metavar="PATH",
        help="folder for the prompts of servers on the node (default: not allowed)",
    )
    add(
        NodeCacheFlags.PROMPTS_FOLDER,
        type=Path,
        metavar="PATH",
        help="with --prompts-path: where it is mounted in this container",
    )
    logs.add_flags(parser)
    return parser


def _interval(text: str) -> float:
    seconds = flags.seconds(text)
    if not 1 <= seconds <= MAX_INTERVAL:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_INTERVAL:g} seconds")
    return seconds
