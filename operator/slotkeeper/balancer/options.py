"""The balancer's command-line options."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper import flags, logs
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.balancer.election.peers import host_and_port
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.proxy.prompt_limits import PromptLimits
from slotkeeper.edge import listen_flags
from slotkeeper.edge.routes import PROXIED
from slotkeeper.flags import Address, BalancerFlags
from slotkeeper.scheduling import AffinityLimits, QueueLimits, RunningLimits
from slotkeeper.wire.limits import Limits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `slotkeeper balancer`."""

    listen: Address
    metrics: Address
    replicas: tuple[str, ...]
    endpoints: tuple[str, str] | None
    lease: tuple[str, str] | None
    identity: str
    peers: tuple[str, str] | None
    role: tuple[str, str] | None
    slots: int | None
    model: str
    queue_limits: QueueLimits
    affinity: AffinityLimits | None
    prompt_files: int | None
    """Port of the replicas' prompt-files agents."""
    prompt_min_tokens: int
    priming: PrimingOptions | None
    prime_folder: Path | None
    speculative: bool
    workers: bool
    running_limits: RunningLimits | None
    reserved_slots: int
    api_keys: Path | None
    rules: AccessRules
    heartbeat_seconds: float
    limits: Limits
    prompt_limits: PromptLimits
    shutdown_delay_seconds: float
    drain_timeout: float
    access_log: bool
    log_format: str
    log_level: str


def parse(argv: Sequence[str]) -> Options:
    """Parse a command line. Raises SystemExit, with a message on stderr, if it is invalid."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.slots is not None and arguments.endpoints:
        parser.error("--slots requires --replica; with --endpoints each replica's /slots is read")
    if arguments.lease and not (arguments.endpoints and arguments.identity and arguments.peers):
        parser.error("--lease requires --endpoints, --identity and --peers")
    if (arguments.identity or arguments.peers) and not arguments.lease:
        parser.error("--identity and --peers require --lease")
    if arguments.role and not arguments.endpoints:
        parser.error("--role requires --endpoints")
    if not arguments.prime_seconds and (arguments.prime_folder or arguments.learn_prompts):
        parser.error("--prime-folder and --learn-prompts require --prime-seconds")
    if not arguments.api_keys:
        for flag, value in (
            (BalancerFlags.API_KEYS_SECRET, arguments.api_keys_secret),
            (BalancerFlags.KEY_MAX_PRIORITY, arguments.key_max_priority),
            (BalancerFlags.MAX_RUNNING_PER_KEY, arguments.max_running_per_key),
            (BalancerFlags.KEY_MAX_RUNNING, arguments.key_max_running),
        ):
            if value:
                parser.error(f"{flag} requires --api-keys")
    queue_limits = QueueLimits(
        max_queued=arguments.max_queued,
        max_queued_bytes=arguments.max_queued_mib * MIB,
        queue_timeout=arguments.queue_timeout,
        cold_start_timeout=arguments.cold_start_timeout,
    )
    return Options(
        listen=arguments.listen,
        metrics=arguments.metrics,
        replicas=tuple(dict.fromkeys(arguments.replica or ())),
        endpoints=arguments.endpoints,
        lease=arguments.lease,
        identity=arguments.identity,
        peers=arguments.peers,
        role=arguments.role,
        slots=arguments.slots,
        model=arguments.model,
        queue_limits=queue_limits,
        affinity=AffinityLimits(arguments.cached_prompts, arguments.max_affinity_wait)
        if arguments.prefix_affinity
        else None,
        prompt_files=arguments.prompt_files,
        prompt_min_tokens=arguments.prompt_min_tokens,
        priming=PrimingOptions(
            arguments.prime_seconds, arguments.learn_prompts, arguments.prime_config_map
        )
        if arguments.prime_seconds
        else None,
        prime_folder=arguments.prime_folder,
        speculative=arguments.speculative,
        workers=arguments.workers,
        running_limits=_running_limits(arguments),
        reserved_slots=arguments.reserved_slots,
        api_keys=arguments.api_keys,
        rules=AccessRules(
            arguments.max_priority,
            dict(arguments.key_max_priority or ()),
            frozenset(arguments.allowed_path or PROXIED),
            arguments.api_keys_secret,
        ),
        heartbeat_seconds=arguments.heartbeat_interval,
        limits=listen_flags.limits_of(
            arguments,
            # A full queue must fit.
            min_buffered=queue_limits.max_queued_bytes,
        ),
        prompt_limits=PromptLimits(arguments.replica_memory_mib * MIB, arguments.media),
        shutdown_delay_seconds=arguments.shutdown_delay,
        drain_timeout=arguments.drain_timeout,
        access_log=arguments.access_log,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
    )


def _running_limits(arguments: argparse.Namespace) -> RunningLimits | None:
    by_key = dict(arguments.key_max_running or ())
    if arguments.max_running_per_key is None and not by_key:
        return None
    return RunningLimits(arguments.max_running_per_key, by_key)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper balancer",
        description="Load balancer for llama-servers: queues requests, and dispatches them to free "
        "slots. A replica never has more requests than slots.",
        formatter_class=flags.HelpFormatter,
    )
    add = parser.add_argument
    listen_flags.add_addresses(
        parser,
        clients="for clients",
        metrics="of /metrics, /ready, /healthz, /autoscaling, /debug/queue; not for clients",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        BalancerFlags.REPLICA,
        action="append",
        type=_replica,
        metavar="HOST:PORT",
        help="address of a llama-server; repeatable",
    )
    source.add_argument(
        BalancerFlags.ENDPOINTS,
        type=flags.namespaced_name,
        metavar="NAMESPACE/SERVICE",
        help="Kubernetes Service whose endpoints are the replicas; their port is named http",
    )
    add(
        BalancerFlags.LEASE,
        type=flags.namespaced_name,
        metavar="NAMESPACE/LEASE",
        help="Kubernetes Lease for leader election among several balancers: the leader dispatches "
        "requests, the others relay theirs to it",
    )
    add(
        BalancerFlags.IDENTITY,
        default="",
        metavar="NAME",
        help="with --lease: name of this balancer's pod",
    )
    add(
        BalancerFlags.PEERS,
        type=flags.namespaced_name,
        metavar="NAMESPACE/SERVICE",
        help="with --lease: Kubernetes Service of the balancers, with ports http and metrics; only "
        "pods behind it count as balancers",
    )
    add(
        BalancerFlags.ROLE,
        type=flags.namespaced_name,
        metavar="NAMESPACE/ROLE",
        help="Kubernetes Role whose annotations have the access rules in force and what blocks "
        "replicas from starting; stricter rules than those of the flags are applied",
    )
    add(
        BalancerFlags.SLOTS,
        type=flags.positive,
        metavar="N",
        help="slots of each replica; unset: read from its /slots",
    )
    add(BalancerFlags.MODEL, default="default", metavar="NAME", help="model name in /v1/models")
    add(
        BalancerFlags.MAX_QUEUED,
        type=flags.count,
        default=1000,
        metavar="N",
        help="maximum number of queued requests",
    )
    add(
        BalancerFlags.MAX_QUEUED_MIB,
        type=flags.positive,
        default=128,
        metavar="MIB",
        help="maximum total size of the bodies of queued requests",
    )
    listen_flags.add_body_limit(parser)
    add(
        BalancerFlags.MAX_BUFFERED_MIB,
        type=flags.positive,
        default=256,
        metavar="MIB",
        help="maximum memory that requests occupy, those queued and those in transit; at least "
        "--max-queued-mib and --max-body-mib; a quarter of it before authentication",
    )
    listen_flags.add_connection_limits(parser)
    add(
        BalancerFlags.REPLICA_MEMORY_MIB,
        type=flags.count,
        default=0,
        metavar="MIB",
        help="memory limit of a replica, from which the maximum size of a prompt follows; 0: none",
    )
    add(
        BalancerFlags.MEDIA,
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the model accepts images or audio; without it, the context bounds the size of a body",
    )
    add(
        BalancerFlags.QUEUE_TIMEOUT,
        type=flags.seconds,
        default=60,
        metavar="SECONDS",
        help="maximum time in the queue",
    )
    add(
        BalancerFlags.COLD_START_TIMEOUT,
        type=flags.seconds,
        default=570,
        metavar="SECONDS",
        help="maximum time in the queue while there is no replica",
    )
    add(
        BalancerFlags.PREFIX_AFFINITY,
        action=argparse.BooleanOptionalAction,
        default=True,
        help="prefer replicas that have a prefix of the prompt in their cache; without it, first "
        "in first out",
    )
    add(
        BalancerFlags.CACHED_PROMPTS,
        type=flags.count,
        default=AffinityLimits().cached_prompts,
        metavar="N",
        help="prompts in a replica's cache (llama-server's --cache-ram) besides those in its slots",
    )
    add(
        BalancerFlags.MAX_AFFINITY_WAIT,
        type=flags.seconds,
        default=AffinityLimits().max_affinity_wait,
        metavar="SECONDS",
        help="maximum time that a request is queued for a replica that has its prefix cached "
        "while others are free",
    )
    add(
        BalancerFlags.PROMPT_FILES,
        type=_port,
        metavar="PORT",
        help="save computed prompts to files and restore them in other replicas, by the agents "
        "(slotkeeper prompt-files) that listen on this port beside each replica",
    )
    add(
        BalancerFlags.PROMPT_MIN_TOKENS,
        type=flags.positive,
        default=512,
        metavar="N",
        help="with --prompt-files: shorter prompts are not saved",
    )
    add(
        BalancerFlags.PRIME_SECONDS,
        type=flags.positive,
        metavar="SECONDS",
        help="compute beginnings of prompts on each new replica before it gets requests, for this "
        "long at most and until a request is queued; those of the annotation of --role, of "
        "--prime-folder and of --learn-prompts",
    )
    add(
        BalancerFlags.PRIME_FOLDER,
        type=Path,
        metavar="DIR",
        help="with --prime-seconds: directory with a beginning in each file, in the order of the "
        "names; the body of a chat if the name ends with .json, else a text",
    )
    add(
        BalancerFlags.PRIME_CONFIG_MAP,
        default="",
        metavar="NAME",
        help="with --prime-folder: name of its ConfigMap, for messages",
    )
    add(
        BalancerFlags.LEARN_PROMPTS,
        action="store_true",
        help="with --prime-seconds: keep requests in memory to find out which beginnings they "
        "share, up to 2 MiB",
    )
    add(
        BalancerFlags.SPECULATIVE,
        action="store_true",
        help="the replicas decode speculatively: report whether they do, and how many guesses are "
        "right",
    )
    add(
        BalancerFlags.WORKERS,
        action="store_true",
        help="the replicas have workers: a lost worker ends a replica too, so that the request "
        "that was running on it may be sent once more",
    )
    add(
        BalancerFlags.MAX_PRIORITY,
        type=flags.count,
        default=0,
        metavar="N",
        help="accept the header X-Priority, from -N to N, higher first; 0: ignore it",
    )
    add(
        BalancerFlags.HEARTBEAT_INTERVAL,
        type=flags.seconds,
        default=0,
        metavar="SECONDS",
        help="interval of SSE keep-alive comments to clients whose streaming request is queued; "
        "from the first one on the status is 200 whatever follows; 0: none",
    )
    add(
        BalancerFlags.API_KEYS,
        type=Path,
        metavar="DIR",
        help="require an API key: the content of a file in this directory, whose name is the key's "
        "name; changes take effect within two seconds",
    )
    add(
        BalancerFlags.API_KEYS_SECRET,
        default="",
        metavar="NAME",
        help="name of the Secret in --api-keys: if the access rules in force require another one, "
        "requests are rejected",
    )
    add(
        BalancerFlags.KEY_MAX_PRIORITY,
        action="append",
        type=_named_count,
        metavar="NAME=N",
        help="--max-priority of the API key NAME; repeatable",
    )
    add(
        BalancerFlags.MAX_RUNNING_PER_KEY,
        type=flags.positive,
        metavar="N",
        help="maximum number of running requests of each API key; further ones are queued, and do "
        "not delay those of other keys; unset: no limit",
    )
    add(
        BalancerFlags.KEY_MAX_RUNNING,
        action="append",
        type=_named_count,
        metavar="NAME=N",
        help="the same for the API key NAME; repeatable",
    )
    add(
        BalancerFlags.RESERVED_SLOTS,
        type=flags.count,
        default=1,
        metavar="N",
        help="slots that preemptible requests leave free for others, unless nothing else runs",
    )
    add(
        BalancerFlags.ALLOWED_PATH,
        action="append",
        type=_path,
        metavar="PATH",
        help="proxy only this path, such as /v1/chat/completions; repeatable",
    )
    listen_flags.add_shutdown(parser, "balancer", drain_seconds=600)
    listen_flags.add_access_log(parser)
    logs.add_flags(parser)
    return parser


def _replica(text: str) -> str:
    try:
        host, port = host_and_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(text: str) -> int:
    port = flags.positive(text)
    if port > flags.MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return port


def _named_count(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(number)


def _path(text: str) -> bytes:
    path = text.encode(errors="replace")
    if path not in PROXIED:
        allowed = ", ".join(sorted(each.decode() for each in PROXIED))
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {allowed}")
    return path
