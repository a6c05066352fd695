"""`slotkeeper operator`: its flags, and its only clocks."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

from prometheus_client import REGISTRY, start_http_server

from slotkeeper import logs
from slotkeeper.api.compute_capability import normalize
from slotkeeper.desired.images import Images
from slotkeeper.flags import GatewayFlags, address, cidr
from slotkeeper.kube.client import IDLE_TIMEOUT, ApiCluster
from slotkeeper.kube.cluster import ApiError
from slotkeeper.kube.kinds import LLAMA_GATEWAYS
from slotkeeper.reconcile import download_flags
from slotkeeper.reconcile.accelerators.poller import StartLogReader
from slotkeeper.reconcile.clock import Clock
from slotkeeper.reconcile.demand.client import open_client
from slotkeeper.reconcile.demand.poller import DemandPoller
from slotkeeper.reconcile.downloads.client import open_progress_client
from slotkeeper.reconcile.downloads.poller import ProgressPoller
from slotkeeper.reconcile.gateways.catalog import ModelCatalog, Servers
from slotkeeper.reconcile.gateways.reconciler import GatewayReconciler, gateway_records
from slotkeeper.reconcile.gateways.runtime import GatewayRuntime
from slotkeeper.reconcile.health import serve_health
from slotkeeper.reconcile.leader_election import LeadershipLostError, LeaseRef, OperatorLease
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.reconciler import Reconciler
from slotkeeper.reconcile.runtime import Runtime
from slotkeeper.reconcile.state import States
from slotkeeper.reconcile.watch.store import Store
from slotkeeper.reconcile.workqueue import WorkQueue
from slotkeeper.wire.sockets import available

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

MAX_IDLE_TIMEOUT = 600.0
"""Seconds; after a longer time the periodic listing comes first."""

GATEWAY_WORKERS = 4
"""Gateways that are worked on at the same time: there are few, and their passes are short."""

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the operator until SIGTERM or SIGINT (0), or until it must be restarted (1)."""
    flags = _parser().parse_args(argv)
    logs.configure(flags.log_format, flags.log_level)
    status = 0
    try:
        asyncio.run(_run_until_signal(flags))
    except* (LeadershipLostError, ApiError) as ended:
        status = 1
        for error in ended.exceptions:
            log.error("%s; exiting to restart", error)
    return status


async def _run_until_signal(flags: argparse.Namespace) -> None:
    running = asyncio.ensure_future(_run(flags))
    # Until kopf handles it: the first process of a container has no default for SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("received SIGTERM")


async def _run(flags: argparse.Namespace) -> None:
    images = Images(
        flags.llama_server_image,
        flags.balancer_image,
        flags.download_image,
        flags.image_pull_policy,
        dict(flags.llama_server_image_for),
        dict(flags.llama_server_image_for_vendor),
    )
    clock = Clock(time.monotonic, _now)
    states = States(clock.monotonic)
    queue = WorkQueue(states, SystemRandom())
    gateway_states = gateway_records()
    gateway_queue = WorkQueue(
        gateway_states, SystemRandom(), workers=GATEWAY_WORKERS, noun="gateway"
    )
    metrics = Metrics(REGISTRY, lambda: len(queue) + len(gateway_queue))
    ref = LeaseRef(_lease_namespace(flags), _identity())
    async with (
        await ApiCluster.connect(idle_timeout=flags.api_idle_timeout) as cluster,
        # Renewals need connections of their own: those of other requests may all be dead.
        await ApiCluster.connect(idle_timeout=flags.api_idle_timeout) as lease_cluster,
        open_client() as fetch,
        open_progress_client() as fetch_progress,
    ):
        store, gateway_store = Store(), Store(LLAMA_GATEWAYS)
        lease = OperatorLease(lease_cluster, ref, clock)
        poller = DemandPoller(fetch, clock.monotonic)
        reconciler = Reconciler(cluster, store, states, poller, images, clock)
        reconciler.downloads = download_flags.download_settings(flags, _own_namespace())
        catalog = ModelCatalog(store)
        gateway_reconciler = GatewayReconciler(
            cluster,
            gateway_store,
            gateway_states,
            Servers(catalog, reconciler.budgets),
            images,
            clock,
        )
        gateway_reconciler.backend_cidrs = flags.backend_cidr
        metrics.register(
            conflicts=lambda: reconciler.conflicts() + gateway_reconciler.conflicts(),
            snapshots=reconciler.scaling_snapshots,
            unreadable=lambda: _sum(store.unreadable(), gateway_store.unreadable()),
            leads=lease.leads,
            prefetches=reconciler.prefetches,
            budget_waits=reconciler.budgets.waits,
        )
        metrics.register_downloads(reconciler.download_samples)
        metrics.register_accelerators(reconciler.accelerator_problems)
        gateways = GatewayRuntime(
            cluster,
            gateway_store,
            gateway_states,
            catalog,
            gateway_reconciler,
            gateway_queue,
            lease,
            metrics,
            clock.monotonic,
        )
        runtime = Runtime(
            cluster,
            store,
            states,
            reconciler,
            poller,
            queue,
            lease,
            metrics,
            clock.monotonic,
            gateways,
            ProgressPoller(fetch_progress, clock.monotonic),
            StartLogReader(cluster, clock.monotonic),
        )
        start_http_server(flags.metrics[1], addr=available(flags.metrics[0]))
        async with await serve_health(flags.health, lease.problem):
            await lease.acquire()
            try:
                await runtime.run(flags.namespace, flags.api_idle_timeout)
            finally:
                await lease.release()


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {kind: first.get(kind, 0) + second.get(kind, 0) for kind in {*first, *second}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotkeeper operator",
        description="Watch LlamaServers and LlamaGateways, and make the cluster match them. The "
        "cluster is that of KUBECONFIG, or the one that this runs in.",
    )
    add = parser.add_argument
    add("--llama-server-image", required=True, metavar="IMAGE", help="image of the replicas")
    add(
        "--llama-server-image-for",
        type=_image_for,
        action="append",
        default=[],
        metavar="ARCH=IMAGE",
        help="image of replicas whose GPUs have this compute capability, such as 7.5; repeatable "
        "(default: that of their vendor)",
    )
    add(
        "--llama-server-image-for-vendor",
        type=_image_for_vendor,
        action="append",
        default=[],
        metavar="VENDOR=IMAGE",
        help="image of other replicas with GPUs of nvidia, amd or intel, or of another domain of "
        "gpu.resourceName; repeatable (default: they are rejected without an image of their own)",
    )
    add("--balancer-image", required=True, metavar="IMAGE", help="image of the balancers")
    add("--download-image", required=True, metavar="IMAGE", help="image that downloads the models")
    add(
        "--image-pull-policy",
        default="IfNotPresent",
        choices=("Always", "IfNotPresent", "Never"),
        help="pull policy of all these images (default: %(default)s)",
    )
    add(
        GatewayFlags.BACKEND_CIDR,
        type=cidr,
        action="append",
        default=[],
        metavar="CIDR",
        help="private addresses that gateways may use for external backends, besides Services of "
        "their own namespace; repeatable (default: none)",
    )
    download_flags.add_flags(parser)
    add(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="manage LlamaServers and LlamaGateways in this namespace only; repeatable "
        "(default: all)",
    )
    add(
        "--lease-namespace",
        metavar="NAME",
        help="namespace of the Lease for leader election, one that is managed (default: the first "
        "--namespace, or else the operator's own)",
    )
    add(
        "--api-idle-timeout",
        type=_seconds,
        default=IDLE_TIMEOUT,
        metavar="SECONDS",
        help="renew a watch that shows nothing for this long; also the longest timeout of a "
        "request (default: %(default)g)",
    )
    add(
        "--health",
        type=address,
        default="[::]:8081",
        metavar="HOST:PORT",
        help="address of /healthz (default: %(default)s)",
    )
    add(
        "--metrics",
        type=address,
        default="[::]:8080",
        metavar="HOST:PORT",
        help="address of /metrics (default: %(default)s)",
    )
    logs.add_flags(parser)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_IDLE_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to {MAX_IDLE_TIMEOUT:g} seconds")
    return seconds


def _image_for(text: str) -> tuple[str, str]:
    arch, image = _assignment(text, "ARCH")
    try:
        return normalize(arch), image
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{arch!r} {error}") from None


def _image_for_vendor(text: str) -> tuple[str, str]:
    return _assignment(text, "VENDOR")


def _assignment(text: str, what: str) -> tuple[str, str]:
    name, _, image = text.partition("=")
    if not (name and image):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {what}=IMAGE")
    return name, image


def _lease_namespace(flags: argparse.Namespace) -> str:
    if flags.lease_namespace:
        return str(flags.lease_namespace)
    return str(flags.namespace[0]) if flags.namespace else _own_namespace() or "default"


def _own_namespace() -> str | None:
    """The namespace of the operator's pod; None outside of a cluster."""
    return OWN_NAMESPACE.read_text(encoding="utf-8") if OWN_NAMESPACE.exists() else None


def _identity() -> str:
    # A pod's host name is its name; the process id distinguishes two operators on one machine.
    return f"{socket.gethostname()}_{os.getpid()}"


def _now() -> datetime:
    return datetime.now(UTC)
