"""What kopf is for here: it watches servers, and the Lease that shows that its watches live."""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from slotkeeper.kube.client import LONGEST_REQUEST
from slotkeeper.kube.cluster import Kind, Manifest, WatchEvent
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.reconcile.leader_election import LEASE_NAME

MAX_IDLE_TIMEOUT = 40.0
"""Seconds after which kopf goes on with a new stream: soon enough to see the Lease renewed through
it before SEEN_WITHIN_SECONDS are over. To go on costs one request, and lists nothing."""


def registry(
    server_seen: Callable[[WatchEvent], None], lease_seen: Callable[[Manifest], None]
) -> kopf.OperatorRegistry:
    """Handlers that only pass on what was seen; none of them makes kopf write to an object."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        # kopf's own choice would load the whole of the synchronous Kubernetes client.
        in_pod = kopf.login_with_service_account(**arguments)
        return in_pod or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(*_resource(LLAMA_SERVERS), registry=handlers)
    async def server(event: kopf.RawEvent, **_: Any) -> None:
        # Without a type where kopf has listed what there is.
        server_seen(WatchEvent(event["type"] or "ADDED", dict(event["object"])))

    @kopf.on.event(*_resource(LEASES), registry=handlers)
    async def lease(body: kopf.Body, **_: Any) -> None:
        if body.meta.name == LEASE_NAME:
            lease_seen(dict(body))

    return handlers


def settings(silence: float = MAX_IDLE_TIMEOUT) -> kopf.OperatorSettings:
    """kopf's settings: it reads, it never writes, and it notices a stream that died.

    After `silence` seconds without a word, LONGEST_SILENCE at most, it takes a stream for dead.
    """
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # The CRD is there before kopf starts; to watch for others would ask for more rights.
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = 600
    chosen.watching.inactivity_timeout = min(silence, MAX_IDLE_TIMEOUT)
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = min(silence, LONGEST_REQUEST)
    chosen.networking.connect_timeout = 10
    # Each object that changes has a worker, which lives on for a while.
    chosen.queueing.idle_timeout = 1
    # The operator's own, not those of nodes and balancers, which are renewed all the time.
    chosen.watching.field_selectors[_resource(LEASES)] = f"metadata.name={LEASE_NAME}"
    # It would say of each event that its handler succeeded.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return chosen


def _resource(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.version, kind.plural
