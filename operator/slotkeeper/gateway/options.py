"""The gateway's command-line options."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper import flags, logs
from slotkeeper.api.gateway_drain import DRAIN_SECONDS
from slotkeeper.edge import listen_flags
from slotkeeper.flags import Address, GatewayFlags
from slotkeeper.wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `slotkeeper gateway`."""

    gateway: tuple[str, str]
    """Namespace and name of the LlamaGateway."""
    listen: Address
    metrics: Address
    api_keys: Path | None
    tls: Path | None
    backends: Path | None
    backend_cidrs: tuple[str, ...]
    limits: Limits
    shutdown_delay_seconds: float
    drain_timeout: float
    access_log: bool
    log_format: str
    log_level: str


def parse(argv: Sequence[str]) -> Options:
    """Parse a command line. Raises SystemExit, with a message on stderr, if it is invalid."""
    arguments = _parser().parse_args(argv)
    return Options(
        gateway=arguments.gateway,
        listen=arguments.listen,
        metrics=arguments.metrics,
        api_keys=arguments.api_keys,
        tls=arguments.tls,
        backends=arguments.backends,
        backend_cidrs=tuple(arguments.backend_cidr),
        limits=listen_flags.limits_of(arguments),
        shutdown_delay_seconds=arguments.shutdown_delay,
        drain_timeout=arguments.drain_timeout,
        access_log=arguments.access_log,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper gateway",
        description="One address for many LlamaServers: forwards each request to the server of the "
        "model that it names. The spec of the LlamaGateway is its configuration.",
        formatter_class=flags.HelpFormatter,
    )
    add = parser.add_argument
    add(
        GatewayFlags.GATEWAY,
        type=flags.namespaced_name,
        required=True,
        metavar="NAMESPACE/NAME",
        help="the LlamaGateway, whose spec is the configuration; changes apply without a restart",
    )
    listen_flags.add_addresses(
        parser,
        clients="for clients",
        metrics="of /metrics, /ready and /healthz; not for clients",
    )
    add(
        GatewayFlags.API_KEYS,
        type=Path,
        metavar="DIR",
        help="require an API key: the content of a file in this directory, whose name is the key's "
        "name; changes take effect within two seconds",
    )
    add(
        GatewayFlags.TLS,
        type=Path,
        metavar="DIR",
        help="serve clients with TLS: the certificate tls.crt and the key tls.key in this "
        "directory; changes take effect within ten seconds",
    )
    add(
        GatewayFlags.BACKENDS,
        type=Path,
        metavar="DIR",
        help="the Secrets of external backends, a directory for each; changes take effect within "
        "five seconds",
    )
    add(
        GatewayFlags.BACKEND_CIDR,
        type=flags.cidr,
        action="append",
        default=[],
        metavar="CIDR",
        help="allow external backends at these private addresses, besides public addresses and "
        "Services of the gateway's namespace; repeatable",
    )
    listen_flags.add_body_limit(parser)
    add(
        GatewayFlags.MAX_BUFFERED_MIB,
        type=flags.positive,
        default=128,
        metavar="MIB",
        help="maximum memory that requests, and responses that clients do not read, occupy; at "
        "least --max-body-mib; a quarter of it before authentication",
    )
    listen_flags.add_connection_limits(parser)
    listen_flags.add_shutdown(parser, "gateway", drain_seconds=DRAIN_SECONDS)
    listen_flags.add_access_log(parser)
    logs.add_flags(parser)
    return parser
