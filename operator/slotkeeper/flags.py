"""Command-line flags, each spelled once, and parsers for their values."""

import argparse
import ipaddress
import math

from typing_extensions import override

Address = tuple[str, int]
"""Host and port."""


class ListenFlags:
    """Flags of the processes that serve clients."""

    LISTEN = "--listen"
    METRICS = "--metrics"
    MAX_BODY_MIB = "--max-body-mib"
    MAX_BUFFERED_MIB = "--max-buffered-mib"
    MAX_CONNECTIONS = "--max-connections"
    MAX_CONNECTIONS_PER_ADDRESS = "--max-connections-per-address"
    IDLE_TIMEOUT = "--idle-timeout"
    HEAD_TIMEOUT = "--head-timeout"
    BODY_TIMEOUT = "--body-timeout"
    WRITE_TIMEOUT = "--write-timeout"
    API_KEYS = "--api-keys"
    SHUTDOWN_DELAY = "--shutdown-delay"
    DRAIN_TIMEOUT = "--drain-timeout"
    ACCESS_LOG = "--access-log"


class BalancerFlags(ListenFlags):
    """Flags of `slotkeeper balancer`."""

    REPLICA = "--replica"
    ENDPOINTS = "--endpoints"
    LEASE = "--lease"
    IDENTITY = "--identity"
    PEERS = "--peers"
    ROLE = "--role"
    SLOTS = "--slots"
    MODEL = "--model"
    MAX_QUEUED = "--max-queued"
    MAX_QUEUED_MIB = "--max-queued-mib"
    QUEUE_TIMEOUT = "--queue-timeout"
    COLD_START_TIMEOUT = "--cold-start-timeout"
    PREFIX_AFFINITY = "--prefix-affinity"
    NO_PREFIX_AFFINITY = "--no-prefix-affinity"
    CACHED_PROMPTS = "--cached-prompts"
    MAX_AFFINITY_WAIT = "--max-affinity-wait"
    MAX_PRIORITY = "--max-priority"
    HEARTBEAT_INTERVAL = "--heartbeat-interval"
    API_KEYS_SECRET = "--api-keys-secret"  # noqa: S105 (a flag)
    KEY_MAX_PRIORITY = "--key-max-priority"
    MAX_RUNNING_PER_KEY = "--max-running-per-key"
    KEY_MAX_RUNNING = "--key-max-running"
    RESERVED_SLOTS = "--reserved-slots"
    ALLOWED_PATH = "--allowed-path"
    REPLICA_MEMORY_MIB = "--replica-memory-mib"
    MEDIA = "--media"
    NO_MEDIA = "--no-media"
    PROMPT_FILES = "--prompt-files"
    PROMPT_MIN_TOKENS = "--prompt-min-tokens"
    PRIME_SECONDS = "--prime-seconds"
    PRIME_FOLDER = "--prime-folder"
    PRIME_CONFIG_MAP = "--prime-config-map"
    LEARN_PROMPTS = "--learn-prompts"
    SPECULATIVE = "--speculative"
    WORKERS = "--workers"


class GatewayFlags(ListenFlags):
    """Flags of `slotkeeper gateway`."""

    GATEWAY = "--gateway"
    TLS = "--tls"
    BACKENDS = "--backends"
    BACKEND_CIDR = "--backend-cidr"


class BatchesFlags(ListenFlags):
    """Flags of `slotkeeper batches`."""

    GATEWAY = "--gateway"
    DATA = "--data"
    GATEWAY_CERTIFICATE = "--gateway-certificate"
    MAX_FILE_MIB = "--max-file-mib"
    MAX_STORAGE_MIB = "--max-storage-mib"
    MAX_LINE_MIB = "--max-line-mib"
    RETENTION_DAYS = "--retention-days"
    CONCURRENCY = "--concurrency"


class DownloadFlags:
    """Flags of `slotkeeper download`."""

    MODEL = "--model"
    MMPROJ = "--mmproj"
    ADAPTER = "--adapter"
    DRAFT = "--draft"
    SAME_VOCABULARY = "--same-vocabulary"
    SHA256 = "--sha256"
    PARTS_SHA256 = "--parts-sha256"
    TO = "--to"
    TOKEN_FILE = "--token-file"  # noqa: S105 (a flag)
    TOKEN_HOSTS_FILE = "--token-hosts-file"  # noqa: S105 (a flag)
    ALLOW_HTTP_TOKEN = "--allow-http-token"  # noqa: S105 (a flag)
    S3_ENDPOINT = "--s3-endpoint"
    S3_REGION = "--s3-region"
    S3_VIRTUAL_HOSTS = "--s3-virtual-hosts"
    S3_CREDENTIALS = "--s3-credentials"
    S3_SESSION_TOKEN = "--s3-session-token"  # noqa: S105 (a flag)
    PLAIN_HTTP_REGISTRIES = "--plain-http-registries"
    CA_FILE = "--ca-file"
    CA_CONFIG_MAP = "--ca-config-map"
    ADDRESS_GUARD = "--address-guard"
    ALLOWED_ADDRESSES = "--allowed-addresses"
    TRUSTED_PROXY = "--trusted-proxy"
    MAX_FILE_BYTES = "--max-file-bytes"
    MAX_TOTAL_BYTES = "--max-total-bytes"
    ALWAYS_VERIFY = "--always-verify"
    INSPECT = "--inspect"
    NODE_CACHE = "--node-cache"
    TRIES = "--tries"
    TERMINATION_LOG = "--termination-log"
    PROGRESS_PORT = "--progress-port"


class DownloadDefaultsFlags:
    """Flags of `slotkeeper operator` for the downloads of all servers."""

    ADDRESS_RANGE = "--download-address-range"
    HTTP_PROXY = "--download-http-proxy"
    HTTPS_PROXY = "--download-https-proxy"
    NO_PROXY = "--download-no-proxy"
    CA_CERTIFICATES = "--download-ca-certificates"


CA_CERTIFICATES = "SLOTKEEPER_CA_CERTIFICATES"
"""Environment variable of the download container. As an argument, certificates would make the
command unreadable."""


class NodeCacheFlags:
    """Flags of `slotkeeper node-cache`."""

    PATH = "--path"
    FOLDER = "--folder"
    PROMPTS_PATH = "--prompts-path"
    PROMPTS_FOLDER = "--prompts-folder"
    PREPARE = "--prepare"
    SIZE_LIMIT = "--size-limit"
    MIN_FREE_PERCENT = "--min-free-percent"
    NODE = "--node"
    NAMESPACE = "--namespace"
    INTERVAL = "--interval"
    METRICS = "--metrics"


class PromptFilesFlags:
    """Flags of `slotkeeper prompt-files`."""

    FOLDER = "--folder"
    IDENTITY = "--identity"
    PREPARE = "--prepare"
    MODEL = "--model"
    SIZE_LIMIT = "--size-limit"
    MIN_FREE_PERCENT = "--min-free-percent"
    LISTEN = "--listen"


class BakeFlags:
    """Flags of `slotkeeper bake`, besides those of `slotkeeper download`."""

    IMAGE = "--image"
    BASE = "--base"
    PLATFORM = "--platform"
    TOOL = "--tool"
    PUSH = "--push"
    CACHE_DIR = "--cache-dir"
    TOKEN_HOST = "--token-host"  # noqa: S105 (a flag)


class PlanFlags:
    """Flags of `slotkeeper plan`, besides those of sources."""

    GPU = "--gpu"
    SLOTS = "--slots"
    CONTEXT = "--context"
    KV_CACHE_TYPE = "--kv-cache-type"
    FLASH_ATTENTION = "--flash-attention"
    GPU_LAYERS = "--gpu-layers"
    SPLIT_MODE = "--split-mode"
    TENSOR_SPLIT = "--tensor-split"
    CPU_MOE_LAYERS = "--cpu-moe-layers"
    EMBEDDINGS = "--embeddings"
    MMPROJ = "--mmproj"
    DRAFT = "--draft"
    DRAFT_GPU_LAYERS = "--draft-gpu-layers"
    PLOT = "--plot"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the defaults to the help, where there are any."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default == "":
            return action.help
        return super()._get_help_string(action)


class LogFlags:
    """Flags of all commands."""

    FORMAT = "--log-format"
    LEVEL = "--log-level"


MAX_PORT = 65535


def address(text: str) -> Address:
    """Parse HOST:PORT or [HOST]:PORT; without a host: all IPv4 and IPv6 addresses.

    Raises ArgumentTypeError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "::", int(port)


def namespaced_name(text: str) -> tuple[str, str]:
    """Parse NAMESPACE/NAME. Raises ArgumentTypeError."""
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return namespace, name


def count(text: str) -> int:
    """Parse a whole number, 0 or more. Raises ArgumentTypeError."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def cidr(text: str) -> str:
    """Check a range of addresses such as 10.0.0.0/8. Raises ArgumentTypeError."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a CIDR: {error}") from None


def percent(text: str) -> int:
    """Parse the part of a disk that is left free, in percent. Raises ArgumentTypeError."""
    number = count(text)
    if number > 90:
        raise argparse.ArgumentTypeError("must be 0 to 90")
    return number


def positive(text: str) -> int:
    """Parse a whole number, 1 or more. Raises ArgumentTypeError."""
    number = count(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def seconds(text: str) -> float:
    """Parse a finite number, 0 or more. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return number
