"""The balancer's command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper import flags, logs
from slotkeeper.balancer.access import AccessRules
from slotkeeper.edge.routes import PROXIED
from slotkeeper.flags import Address, BalancerFlags
from slotkeeper.scheduling import AffinityLimits, QueueLimits
from slotkeeper.wire.limits import Limits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What `slotkeeper balancer` was told."""

    listen: Address
    metrics: Address
    replicas: tuple[str, ...]
    endpoints: tuple[str, str] | None
    lease: tuple[str, str] | None
    identity: str
    advertise: str
    slots: int | None
    model: str
    queue_limits: QueueLimits
    affinity: AffinityLimits | None
    api_keys: Path | None
    rules: AccessRules
    heartbeat_seconds: float
    limits: Limits
    shutdown_delay_seconds: float
    drain_seconds: float
    access_log: bool
    log_format: str
    log_level: str


def parse(argv: Sequence[str]) -> Options:
    """Options from a command line. Raises SystemExit with a sentence where it is not valid."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.slots is not None and given.endpoints:
        parser.error("--slots goes with --replica; with --endpoints each replica's /slots is read")
    if given.lease and not (given.endpoints and given.identity and given.advertise):
        parser.error("--lease needs --endpoints, --identity and --advertise")
    if (given.identity or given.advertise) and not given.lease:
        parser.error("--identity and --advertise are of no use without --lease")
    if given.key_max_priority and not given.api_keys:
        parser.error("--key-max-priority needs --api-keys")
    bounds = QueueLimits(
        max_queued=given.max_queued,
        max_queued_bytes=given.max_queued_mib * MIB,
        queue_timeout=given.queue_timeout,
        cold_start_timeout=given.cold_start_timeout,
    )
    return Options(
        listen=given.listen,
        metrics=given.metrics,
        replicas=tuple(dict.fromkeys(given.replica or ())),
        endpoints=given.endpoints,
        lease=given.lease,
        identity=given.identity,
        advertise=given.advertise,
        slots=given.slots,
        model=given.model,
        queue_limits=bounds,
        affinity=AffinityLimits(given.cached_prompts, given.max_affinity_wait)
        if given.prefix_affinity
        else None,
        api_keys=given.api_keys,
        rules=AccessRules(
            given.max_priority,
            dict(given.key_max_priority or ()),
            frozenset(given.allowed_path or PROXIED),
        ),
        heartbeat_seconds=given.heartbeat_seconds,
        limits=_limits(given.max_body_mib * MIB, bounds.max_queued_bytes),
        shutdown_delay_seconds=given.shutdown_delay_seconds,
        drain_seconds=given.drain_seconds,
        access_log=given.access_log,
        log_format=given.log_format,
        log_level=given.log_level,
    )


def _limits(max_body: int, max_queued: int) -> Limits:
    # A queue that is allowed must fit; its bodies are most of what a memory limit allows for.
    return Limits(max_body=max_body, max_buffered=max(Limits().max_buffered, max_queued, max_body))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper balancer",
        description="Hands requests to free slots of llama-servers: one queue, first in first out, "
        "never more requests on a replica than it has slots.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        BalancerFlags.LISTEN,
        type=flags.address,
        required=True,
        metavar="HOST:PORT",
        help="for clients",
    )
    add(
        BalancerFlags.METRICS,
        type=flags.address,
        required=True,
        metavar="HOST:PORT",
        help="/metrics, /ready, /healthz, /autoscaling and /debug/queue; not for clients",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        BalancerFlags.REPLICA,
        action="append",
        type=_replica,
        metavar="HOST:PORT",
        help="a llama-server; may be given several times",
    )
    source.add_argument(
        BalancerFlags.ENDPOINTS,
        type=_service,
        metavar="NAMESPACE/SERVICE",
        help="follow the EndpointSlices of this Kubernetes Service, port name http",
    )
    add(
        BalancerFlags.LEASE,
        type=_service,
        metavar="NAMESPACE/LEASE",
        help="several balancers: the one that holds this Kubernetes Lease hands out the slots, the "
        "others pass requests on to it",
    )
    add(
        BalancerFlags.IDENTITY,
        default="",
        metavar="NAME",
        help="with --lease: this balancer's own name",
    )
    add(
        BalancerFlags.ADVERTISE,
        default="",
        metavar="HOST",
        help="with --lease: where the other balancers reach this one",
    )
    add(
        BalancerFlags.SLOTS,
        type=flags.positive,
        metavar="N",
        help="slots of a replica; unset: from its /slots",
    )
    add(BalancerFlags.MODEL, default="default", metavar="NAME", help="the name in /v1/models")
    add(
        BalancerFlags.MAX_QUEUED,
        type=flags.count,
        default=1000,
        metavar="N",
        help="requests in the queue",
    )
    add(
        BalancerFlags.MAX_QUEUED_MIB,
        type=flags.positive,
        default=128,
        metavar="MIB",
        help="bodies of the requests in the queue",
    )
    add(
        BalancerFlags.MAX_BODY_MIB,
        type=flags.positive,
        default=32,
        metavar="MIB",
        help="body of one request",
    )
    add(
        BalancerFlags.QUEUE_TIMEOUT,
        type=flags.seconds,
        default=60.0,
        metavar="SECONDS",
        help="in the queue",
    )
    add(
        BalancerFlags.COLD_START_TIMEOUT,
        type=flags.seconds,
        default=570.0,
        metavar="SECONDS",
        help="in the queue while there is no replica",
    )
    add(
        BalancerFlags.PREFIX_AFFINITY,
        action=argparse.BooleanOptionalAction,
        default=True,
        help="prefer replicas whose cache knows the beginning of the prompt; else strictly first "
        "in first out",
    )
    add(
        BalancerFlags.CACHED_PROMPTS,
        type=flags.count,
        default=AffinityLimits().cached_prompts,
        metavar="N",
        help="prompts in a replica's cache (llama-server's --cache-ram) beside those in its slots",
    )
    add(
        BalancerFlags.MAX_AFFINITY_WAIT,
        type=flags.seconds,
        default=AffinityLimits().max_affinity_wait,
        metavar="SECONDS",
        help="how long a request waits for a replica that knows its prompt while others are free",
    )
    add(
        BalancerFlags.MAX_PRIORITY,
        type=flags.count,
        default=0,
        metavar="N",
        help="take the header X-Priority, from -N to N, higher first; 0: ignore it",
    )
    add(
        BalancerFlags.HEARTBEAT_SECONDS,
        type=flags.seconds,
        default=0.0,
        metavar="SECONDS",
        help="how often a client that waits for a stream is sent a comment, from when on its "
        "status is 200 whatever comes; 0: never",
    )
    add(
        BalancerFlags.API_KEYS,
        type=Path,
        metavar="DIR",
        help="requests need an API key: the content of one of the files in this folder, whose name "
        "is the key's; changes are seen within a second or two",
    )
    add(
        BalancerFlags.KEY_MAX_PRIORITY,
        action="append",
        type=_named_count,
        metavar="NAME=N",
        help="--max-priority for the API key NAME; may be given several times",
    )
    add(
        BalancerFlags.ALLOWED_PATH,
        action="append",
        type=_route,
        metavar="PATH",
        help="pass on only this path, as /v1/chat/completions; may be given several times",
    )
    add(
        BalancerFlags.SHUTDOWN_DELAY_SECONDS,
        type=flags.seconds,
        default=2.0,
        metavar="SECONDS",
        help="after SIGTERM, how long new requests are still taken: not ready any more, but "
        "clients may not have heard of it",
    )
    add(
        BalancerFlags.DRAIN_SECONDS,
        type=flags.seconds,
        default=600.0,
        metavar="SECONDS",
        help="after that, how long requests may take to end",
    )
    add(
        BalancerFlags.ACCESS_LOG,
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a line of JSON a request on standard output",
    )
    logs.add_flags(parser)
    return parser


def _replica(text: str) -> str:
    host, port = flags.address(text)
    if not text.rpartition(":")[0] or port == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _service(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/SERVICE")
    return namespace, name


def _named_count(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(number)


def _route(text: str) -> bytes:
    path = text.encode(errors="replace")
    if path not in PROXIED:
        allowed = ", ".join(sorted(each.decode() for each in PROXIED))
        raise argparse.ArgumentTypeError(f"{text!r} is none of {allowed}")
    return path
