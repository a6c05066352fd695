"""kopf's part: it watches LlamaServers, and the operator's Lease to prove that its watches work."""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from slotkeeper.kube.client import REQUEST_TIMEOUT
from slotkeeper.kube.cluster import Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.reconcile.leader_election import LEASE_NAME
from slotkeeper.reconcile.watch.kopf_session import CHUNK, session

MAX_IDLE_TIMEOUT = 40.0
"""Seconds without an event after which kopf renews a watch: soon enough to see the Lease renewed
through the new one within WATCHED_WITHIN_SECONDS. Renewing costs one request and lists nothing."""


def registry(
    on_server_event: Callable[[WatchEvent], None], on_lease: Callable[[Manifest], None]
) -> kopf.OperatorRegistry:
    """Handlers that only pass events on; none of them makes kopf write to an object."""
    handlers = kopf.OperatorRegistry()
    rejected: list[kopf.ConnectionInfo] = []

    @kopf.on.login(registry=handlers)
    async def login(**arguments: Any) -> kopf.AiohttpSession | None:
        # kopf's default would load the whole synchronous Kubernetes client.
        in_pod = kopf.login_with_service_account(**arguments)
        found = in_pod or kopf.login_with_kubeconfig(**arguments)
        if found is None or found in rejected:
            return None
        # kopf calls this again only after the API server has rejected these.
        rejected[:] = [found]
        return session(found)

    @kopf.on.event(*_resource(LLAMA_SERVERS), registry=handlers)
    async def server(event: kopf.RawEvent, **_: Any) -> None:
        # An object from a listing has no type.
        on_server_event(WatchEvent(event["type"] or "ADDED", dict(event["object"])))

    @kopf.on.event(*_resource(LEASES), registry=handlers)
    async def lease(body: kopf.Body, **_: Any) -> None:
        if body.meta.name == LEASE_NAME:
            on_lease(dict(body))

    return handlers


def settings(idle_timeout: float = MAX_IDLE_TIMEOUT) -> kopf.OperatorSettings:
    """kopf's settings: it reads, never writes, and notices a watch that died.

    A watch without an event for `idle_timeout` seconds, at most MAX_IDLE_TIMEOUT, is renewed.
    """
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # The CRD exists before kopf starts; watching for others would need more rights.
    chosen.scanning.disabled = True
    chosen.watching.chunk_size = CHUNK
    chosen.watching.server_timeout = 600
    chosen.watching.inactivity_timeout = min(idle_timeout, MAX_IDLE_TIMEOUT)
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = min(idle_timeout, REQUEST_TIMEOUT)
    chosen.networking.connect_timeout = 10
    # Each object that changes has a worker, which lives on for this long.
    chosen.queueing.idle_timeout = 1
    # Only the operator's own Lease: those of nodes and balancers change all the time.
    chosen.watching.field_selectors[_resource(LEASES)] = f"metadata.name={LEASE_NAME}"
    # It would log for each event that its handler succeeded.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return chosen


def _resource(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.version, kind.plural
