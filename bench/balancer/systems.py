"""The compared systems: how each is started, and its complete configuration."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Pick = Literal["random", "round robin"]


@dataclass(frozen=True, slots=True)
class ProxySetup:
    """Parameters of a proxy on `port`, in front of `replicas` (ports) with `slots` slots each."""

    port: int
    metrics_port: int
    replicas: tuple[int, ...]
    slots: int
    folder: Path


@dataclass(frozen=True, slots=True)
class System:
    """A way to distribute requests to replicas.

    Without a `command` there is no proxy: clients `pick` a replica for each request.
    """

    name: str
    command: Callable[[ProxySetup], list[str]] | None = None
    files: Callable[[ProxySetup], Mapping[str, str]] = field(default=lambda _: {})
    pick: Pick = "round robin"
    counts_replicas: bool = False
    """Whether its metrics port reports the number of ready replicas; otherwise it is ready as soon
    as it listens."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables."""
    headers: Callable[[ProxySetup], list[str]] = field(default=lambda _: [])
    """Headers of requests to it that configure it."""
    start_seconds: float = 10
    """How long it may take until it is ready."""


def nginx_config(setup: ProxySetup) -> str:
    """Return nginx's config: least connections, without limit and queue, which free nginx lacks."""
    servers = "\n".join(f"        server 127.0.0.1:{port};" for port in setup.replicas)
    return f"""\
daemon off;
master_process off;
pid {setup.folder}/nginx.pid;
error_log {setup.folder}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_max_body_size 64m;
    client_body_buffer_size 8m;
    client_body_temp_path {setup.folder}/body;
    proxy_temp_path {setup.folder}/proxy;
    fastcgi_temp_path {setup.folder}/fastcgi;
    uwsgi_temp_path {setup.folder}/uwsgi;
    scgi_temp_path {setup.folder}/scgi;
    upstream replicas {{
        least_conn;
{servers}
        keepalive {len(setup.replicas) * setup.slots};
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{setup.port} backlog=4096;
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


def haproxy_config(setup: ProxySetup) -> str:
    """Return HAProxy's config: one queue, and as many requests on a replica as it has slots."""
    servers = "\n".join(
        f"    server r{number} 127.0.0.1:{port} maxconn {setup.slots}"
        for number, port in enumerate(setup.replicas)
    )
    return f"""\
global
    nbthread 1
    maxconn 9000
defaults
    mode http
    option http-no-delay
    option abortonclose
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout queue 600s
frontend clients
    bind 127.0.0.1:{setup.port} backlog 4096
    default_backend replicas
backend replicas
    balance leastconn
{servers}
"""


def slotkeeper_command(setup: ProxySetup, *more: str) -> list[str]:
    """Return the command line of our balancer with a fixed list of replicas."""
    replicas = [part for port in setup.replicas for part in ("--replica", f"127.0.0.1:{port}")]
    return _slotkeeper(setup, *replicas, *more)


def slotkeeper_watching(setup: ProxySetup) -> list[str]:
    """Return the command line of our balancer as in a cluster, where it watches EndpointSlices."""
    return _slotkeeper(setup, "--endpoints", "bench/replicas", "--no-access-log")


def _slotkeeper(setup: ProxySetup, *more: str) -> list[str]:
    # The limits are so high that no workload reaches them.
    return [
        *(sys.executable, "-m", "slotkeeper", "balancer"),
        *("--listen", f"127.0.0.1:{setup.port}", "--metrics", f"127.0.0.1:{setup.metrics_port}"),
        *("--max-queued", "20000", "--max-queued-mib", "1024", "--queue-timeout", "600"),
        *more,
    ]


DIRECT = System("direct")
RANDOM = System("random", pick="random")
ROUND_ROBIN = System("round robin")
NGINX = System(
    "nginx",
    lambda setup: [
        "nginx",
        "-e",
        str(setup.folder / "error.log"),
        "-c",
        str(setup.folder / "nginx.conf"),
    ],
    lambda setup: {"nginx.conf": nginx_config(setup)},
)
HAPROXY = System(
    "HAProxy",
    lambda setup: ["haproxy", "-db", "-f", str(setup.folder / "haproxy.cfg")],
    lambda setup: {"haproxy.cfg": haproxy_config(setup)},
)
# Without the access log, since the other systems write none.
SLOTKEEPER = System(
    "slotkeeper",
    lambda setup: slotkeeper_command(setup, "--no-access-log"),
    counts_replicas=True,
)
SLOTKEEPER_LOGGING = System("slotkeeper, access log", slotkeeper_command, counts_replicas=True)
SLOTKEEPER_WATCHING = System(
    "slotkeeper, EndpointSlices", slotkeeper_watching, counts_replicas=True
)
PROXIES = (NGINX, HAPROXY, SLOTKEEPER)
