"""The command-line options of the batches process."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper import flags, logs
from slotkeeper.edge import listen_flags
from slotkeeper.flags import Address, BatchesFlags

MIB = 1024**2
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `slotkeeper batches`."""

    gateway: Address
    data: Path
    listen: Address
    metrics: Address
    api_keys: Path | None
    certificate: Path | None
    max_file_bytes: int
    max_storage_bytes: int | None
    max_line: int
    retention_seconds: int
    concurrency: int
    access_log: bool
    log_format: str
    log_level: str


def parse(argv: Sequence[str]) -> Options:
    """Parse a command line. Raises SystemExit, with a message on stderr, if it is invalid."""
    arguments = _parser().parse_args(argv)
    storage = arguments.max_storage_mib
    return Options(
        gateway=arguments.gateway,
        data=arguments.data,
        listen=arguments.listen,
        metrics=arguments.metrics,
        api_keys=arguments.api_keys,
        certificate=arguments.gateway_certificate,
        max_file_bytes=arguments.max_file_mib * MIB,
        max_storage_bytes=None if storage is None else storage * MIB,
        max_line=arguments.max_line_mib * MIB,
        retention_seconds=arguments.retention_days * DAY,
        concurrency=arguments.concurrency,
        access_log=arguments.access_log,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper batches",
        description="Files and batches of a gateway: OpenAI's /v1/files and /v1/batches. The "
        "requests of batches are sent through the gateway, and yield to all others.",
        formatter_class=flags.HelpFormatter,
    )
    add = parser.add_argument
    add(
        BatchesFlags.GATEWAY,
        type=flags.address,
        required=True,
        metavar="HOST:PORT",
        help="address of the gateway",
    )
    add(
        BatchesFlags.DATA,
        type=Path,
        required=True,
        metavar="DIR",
        help="directory of files, results and state; of one process only",
    )
    listen_flags.add_addresses(
        parser,
        clients="for the gateway",
        metrics="of /metrics, /ready and /healthz",
    )
    add(
        BatchesFlags.API_KEYS,
        type=Path,
        metavar="DIR",
        help="the gateway's API keys: those of clients are required, and sent with the requests of "
        "their batches; changes take effect within two seconds",
    )
    add(
        BatchesFlags.GATEWAY_CERTIFICATE,
        type=Path,
        metavar="FILE",
        help="connect to the gateway with TLS; it must have this certificate, or one that it has "
        "signed",
    )
    for flag, default, unit, help_ in (
        (BatchesFlags.MAX_FILE_MIB, 200, "MIB", "maximum size of one file"),
        (BatchesFlags.MAX_STORAGE_MIB, None, "MIB", "maximum size of all files and results"),
        (BatchesFlags.MAX_LINE_MIB, 32, "MIB", "maximum size of one request of a batch"),
        (BatchesFlags.RETENTION_DAYS, 30, "DAYS", "time after which files are deleted"),
        (BatchesFlags.CONCURRENCY, 16, "N", "maximum number of requests in progress"),
    ):
        add(flag, type=flags.positive, default=default, metavar=unit, help=help_)
    listen_flags.add_access_log(parser)
    logs.add_flags(parser)
    return parser
