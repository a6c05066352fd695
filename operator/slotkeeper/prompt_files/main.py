"""`slotkeeper prompt-files`: its flags, and its only clocks."""

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotkeeper import flags, logs
from slotkeeper.api import quantity
from slotkeeper.error_text import describe
from slotkeeper.flags import PromptFilesFlags
from slotkeeper.node_folder import Limits
from slotkeeper.process import ignore_shutdown_signals, shutdown_signal
from slotkeeper.prompt_files.agent import Agent, http_limits
from slotkeeper.prompt_files.folder import Folder
from slotkeeper.prompt_files.metrics import Metrics
from slotkeeper.prompt_files.model_files import ModelFiles
from slotkeeper.prompt_files.names import IDENTITY
from slotkeeper.prompt_files.storage import Storage
from slotkeeper.wire.server import Server
from slotkeeper.wire.sockets import join

SWEEP_SECONDS = 300.0

_log = logging.getLogger("slotkeeper.prompt_files")


def main(argv: Sequence[str]) -> int:
    """Run the agent until SIGTERM or SIGINT (0). Returns 1 if it cannot start."""
    options = _parser().parse_args(argv)
    logs.configure(options.log_format, options.log_level)
    try:
        storage = Storage(options.folder, time.sleep)
        limits = Limits(options.size_limit, options.min_free_percent)
        model = ModelFiles(options.model)
        folder = Folder(storage, options.identity, limits, model.fingerprint)
        if options.prepare:
            folder.prepare(time.time_ns())
        else:
            asyncio.run(_serve(options, folder))
    except OSError as error:
        _log.error("folder %s: %s", options.folder, describe(error))
        return 1
    ignore_shutdown_signals()
    return 0


async def _serve(options: argparse.Namespace, folder: Folder) -> None:
    shutdown = shutdown_signal(asyncio.get_running_loop())
    metrics = Metrics(options.size_limit)
    agent = Agent(folder, metrics, time.monotonic, time.time_ns)
    server = Server(agent.handle, http_limits())
    address = await server.listen(*options.listen)
    _log.info("listening on %s", join(*address))
    sweeping = asyncio.ensure_future(_sweep(agent, metrics))
    ends: list[asyncio.Future[Any]] = [shutdown, sweeping]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if sweeping.done():
        # It never returns: an unexpected error ends the process, which is restarted.
        sweeping.result()
    sweeping.cancel()
    server.drain()
    await agent.close()
    await server.close()


async def _sweep(agent: Agent, metrics: Metrics) -> None:
    while True:
        try:
            await agent.sweep()
        except OSError as error:
            metrics.count_error()
            _log.warning("the folder was not swept: %s", describe(error))
        await asyncio.sleep(SWEEP_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper prompt-files",
        description="Own the folder of a replica's prompt files: the states of slots that its "
        "llama-server saves and restores. Checks each file that was saved, keeps the folder within "
        "its limits, and tells balancers what is in it.",
    )
    add = parser.add_argument
    add(
        PromptFilesFlags.FOLDER,
        type=Path,
        required=True,
        metavar="PATH",
        help="the folder, which agents of other replicas may share",
    )
    add(
        PromptFilesFlags.IDENTITY,
        type=_identity,
        required=True,
        metavar="HEX",
        help="16 hexadecimal digits of all that decides the content of a file. llama-server saves "
        "to the folder of this name, in the other one",
    )
    add(
        PromptFilesFlags.PREPARE,
        action="store_true",
        help="only create the folder of the identity, without which llama-server does not start, "
        "and exit",
    )
    add(
        PromptFilesFlags.MODEL,
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="file of the model whose content the identity does not decide; prompt files of "
        "another content are not listed. Repeatable",
    )
    add(
        PromptFilesFlags.SIZE_LIMIT,
        type=quantity.bytes_argument,
        default="10Gi",
        metavar="QUANTITY",
        help="limit of all files of the folder (default: %(default)s)",
    )
    add(
        PromptFilesFlags.MIN_FREE_PERCENT,
        type=flags.percent,
        default=15,
        metavar="PERCENT",
        help="part of the disk that is left free (default: %(default)s)",
    )
    add(
        PromptFilesFlags.LISTEN,
        type=flags.address,
        default="[::]:9094",
        metavar="HOST:PORT",
        help="address for balancers, llama-server's preStop hook and /metrics "
        "(default: %(default)s)",
    )
    logs.add_flags(parser)
    return parser


def _identity(text: str) -> str:
    if not IDENTITY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} does not have 16 hexadecimal digits")
    return text
