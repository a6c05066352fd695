"""The peers: how each is started, and its configuration in full."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Pick = Literal["random", "round robin"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy stands: on `port`, before `replicas` (ports) with `slots` slots each."""

    port: int
    metrics_port: int
    replicas: tuple[int, ...]
    slots: int
    folder: Path


@dataclass(frozen=True, slots=True)
class System:
    """One way from clients to replicas.

    Without a `command` there is nothing between: clients `pick` a replica for each request.
    """

    name: str
    command: Callable[[Place], list[str]] | None = None
    files: Callable[[Place], Mapping[str, str]] = field(default=lambda _: {})
    pick: Pick = "round robin"
    counts_replicas: bool = False
    """Its metrics port says how many replicas it has joined; else it is ready when it listens."""


def nginx_config(place: Place) -> str:
    """Least connections, no limit and no queue: nginx' free version has none."""
    servers = "\n".join(f"        server 127.0.0.1:{port};" for port in place.replicas)
    return f"""\
daemon off;
master_process off;
pid {place.folder}/nginx.pid;
error_log {place.folder}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_max_body_size 64m;
    client_body_buffer_size 8m;
    client_body_temp_path {place.folder}/body;
    proxy_temp_path {place.folder}/proxy;
    fastcgi_temp_path {place.folder}/fastcgi;
    uwsgi_temp_path {place.folder}/uwsgi;
    scgi_temp_path {place.folder}/scgi;
    upstream replicas {{
        least_conn;
{servers}
        keepalive {len(place.replicas) * place.slots};
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{place.port} backlog=4096;
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


def haproxy_config(place: Place) -> str:
    """One queue, and as many requests on a replica as it has slots."""
    servers = "\n".join(
        f"    server r{number} 127.0.0.1:{port} maxconn {place.slots}"
        for number, port in enumerate(place.replicas)
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
    bind 127.0.0.1:{place.port} backlog 4096
    default_backend replicas
backend replicas
    balance leastconn
{servers}
"""


def slotkeeper_command(place: Place, *more: str) -> list[str]:
    """Our balancer in front of a fixed list of replicas."""
    replicas = [part for port in place.replicas for part in ("--replica", f"127.0.0.1:{port}")]
    return _slotkeeper(place, *replicas, *more)


def slotkeeper_following(place: Place) -> list[str]:
    """Our balancer as it runs in a cluster, following EndpointSlices."""
    return _slotkeeper(place, "--endpoints", "bench/replicas", "--no-access-log")


def _slotkeeper(place: Place, *more: str) -> list[str]:
    # The bounds are so wide that no trace meets them.
    return [
        *(sys.executable, "-m", "slotkeeper", "balancer"),
        *("--listen", f"127.0.0.1:{place.port}", "--metrics", f"127.0.0.1:{place.metrics_port}"),
        *("--max-queued", "20000", "--max-queued-mib", "1024", "--queue-timeout", "600"),
        *more,
    ]


DIRECT = System("direct")
RANDOM = System("random", pick="random")
ROUND_ROBIN = System("round robin")
NGINX = System(
    "nginx",
    lambda place: [
        "nginx",
        "-e",
        str(place.folder / "error.log"),
        "-c",
        str(place.folder / "nginx.conf"),
    ],
    lambda place: {"nginx.conf": nginx_config(place)},
)
HAPROXY = System(
    "HAProxy",
    lambda place: ["haproxy", "-db", "-f", str(place.folder / "haproxy.cfg")],
    lambda place: {"haproxy.cfg": haproxy_config(place)},
)
# The peers write no log either.
SLOTKEEPER = System(
    "slotkeeper",
    lambda place: slotkeeper_command(place, "--no-access-log"),
    counts_replicas=True,
)
SLOTKEEPER_LOGGING = System("slotkeeper, access log", slotkeeper_command, counts_replicas=True)
SLOTKEEPER_FOLLOWING = System(
    "slotkeeper, EndpointSlices", slotkeeper_following, counts_replicas=True
)
PROXIES = (NGINX, HAPROXY, SLOTKEEPER)
