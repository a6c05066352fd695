"""What kopf is for here: it watches, and every event of a server or of its children wakes us."""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Kind, Manifest
from slotkeeper.kube.kinds import CHILDREN, LEASES, LLAMA_SERVERS, PODS
from slotkeeper.reconcile.lease import LEASE_NAME
from slotkeeper.reconcile.queue import Key


def registry(
    server_seen: Callable[[Key, str], None],
    child_seen: Callable[[Key], None],
    lease_seen: Callable[[Manifest], None],
) -> kopf.OperatorRegistry:
    """Handlers that only pass on what was seen; none of them makes kopf write to an object.

    `server_seen` gets the server's resource version too.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        # kopf's own choice would load the whole of the synchronous Kubernetes client.
        in_pod = kopf.login_with_service_account(**arguments)
        return in_pod or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(*_resource(LLAMA_SERVERS), registry=handlers)
    async def server(meta: kopf.Meta, **_: Any) -> None:
        server_seen(Key(meta["namespace"], meta["name"]), meta["resourceVersion"])

    async def child(meta: kopf.Meta, **_: Any) -> None:
        # Absent where somebody has just taken the label off: then the event before named it.
        if owner := meta.labels.get(names.SERVER_LABEL):
            child_seen(Key(meta["namespace"], owner))

    for kind in (*CHILDREN, PODS):
        kopf.on.event(*_resource(kind), registry=handlers)(child)

    @kopf.on.event(*_resource(LEASES), registry=handlers)
    async def lease(body: kopf.Body, **_: Any) -> None:
        if body.meta.name == LEASE_NAME:
            lease_seen(dict(body))

    return handlers


def settings() -> kopf.OperatorSettings:
    """kopf's settings: it reads, it never writes, and it notices a stream that died."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # The CRD is there before kopf starts; to watch for others would ask for more rights.
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = 600
    chosen.watching.inactivity_timeout = 100
    chosen.watching.connect_timeout = 10
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    for kind in (*CHILDREN, PODS):
        chosen.watching.label_selectors[_resource(kind)] = names.SERVER_LABEL
    # One watch for the operator's own Lease and for those that it makes: no node's is among them.
    chosen.watching.label_selectors[_resource(LEASES)] = (
        f"{names.MANAGED_BY_LABEL}={names.FIELD_MANAGER}"
    )
    # It would say of each event that its handler succeeded.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return chosen


def _resource(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.version, kind.plural
