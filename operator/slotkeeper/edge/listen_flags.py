"""Command-line flags of the processes that serve clients: addresses, limits, shutdown."""

import argparse

from slotkeeper import flags
from slotkeeper.flags import ListenFlags
from slotkeeper.wire.limits import MIB, Limits


def add_addresses(parser: argparse.ArgumentParser, *, clients: str, metrics: str) -> None:
    """Add the flags of both addresses; `clients` and `metrics`: what is at them."""
    for flag, help_ in ((ListenFlags.LISTEN, clients), (ListenFlags.METRICS, metrics)):
        parser.add_argument(
            flag, type=flags.address, required=True, metavar="HOST:PORT", help=f"address {help_}"
        )


def add_shutdown(parser: argparse.ArgumentParser, program: str, *, drain_seconds: float) -> None:
    """Add the flags of a shutdown of `program`; `drain_seconds`: the default for requests."""
    parser.add_argument(
        ListenFlags.SHUTDOWN_DELAY,
        type=flags.seconds,
        default=2,
        metavar="SECONDS",
        help="time after SIGTERM in which new requests are still accepted: clients may not have "
        f"noticed yet that the {program} is not ready",
    )
    parser.add_argument(
        ListenFlags.DRAIN_TIMEOUT,
        type=flags.seconds,
        default=drain_seconds,
        metavar="SECONDS",
        help="time after that in which requests may complete",
    )


def add_access_log(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the access log."""
    parser.add_argument(
        ListenFlags.ACCESS_LOG,
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a line of JSON for each request to standard output",
    )


def add_body_limit(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the size of one body."""
    parser.add_argument(
        ListenFlags.MAX_BODY_MIB,
        type=flags.positive,
        default=32,
        metavar="MIB",
        help="maximum size of a request's body",
    )


def add_connection_limits(parser: argparse.ArgumentParser) -> None:
    """Add the flags of connections and their timeouts."""
    limits = Limits()
    add = parser.add_argument
    add(
        ListenFlags.MAX_CONNECTIONS,
        type=flags.positive,
        default=limits.max_connections,
        metavar="N",
        help="maximum number of open connections; a further one displaces one without a request "
        "in progress, of the address that has the most",
    )
    add(
        ListenFlags.MAX_CONNECTIONS_PER_ADDRESS,
        type=flags.positive,
        metavar="N",
        help="the same for one client address; unset: half of --max-connections",
    )
    for flag, seconds, help_ in (
        (
            ListenFlags.IDLE_TIMEOUT,
            limits.idle_timeout,
            "time after which a connection without a request is closed",
        ),
        (
            ListenFlags.HEAD_TIMEOUT,
            limits.head_timeout,
            "maximum time from the first byte of a request to the end of its headers",
        ),
        (ListenFlags.BODY_TIMEOUT, limits.body_timeout, "maximum pause in a request's body"),
        (
            ListenFlags.WRITE_TIMEOUT,
            limits.write_timeout,
            "time after which the connection of a client that does not read is reset",
        ),
    ):
        add(flag, type=flags.seconds, default=seconds, metavar="SECONDS", help=help_)


def limits_of(arguments: argparse.Namespace, *, min_buffered: int = 0) -> Limits:
    """Return the limits that these flags, and --max-buffered-mib, set.

    `min_buffered`: bytes that must fit into the memory for clients.
    """
    max_body = arguments.max_body_mib * MIB
    total = arguments.max_connections
    return Limits(
        max_body=max_body,
        max_buffered=max(arguments.max_buffered_mib * MIB, min_buffered, max_body),
        max_connections=total,
        max_connections_per_address=arguments.max_connections_per_address or max(1, total // 2),
        idle_timeout=arguments.idle_timeout,
        head_timeout=arguments.head_timeout,
        body_timeout=arguments.body_timeout,
        write_timeout=arguments.write_timeout,
    )
