"""Objects with the names of a server's children that do not belong to the server. Pure."""

from collections.abc import Iterable, Mapping

from slotkeeper.api.group import FIELD_MANAGER, KIND
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Child
from slotkeeper.reconcile.observe.ownership import belongs_to
from slotkeeper.reconcile.observe.problem import Problem


def foreign(children: Mapping[Child, Manifest], server: LlamaServer) -> set[Child]:
    """Those of the observed objects that the operator must not change."""
    return {one for one, item in children.items() if not belongs_to(item, server)}


def name_conflict(
    server: LlamaServer, children: Mapping[Child, Manifest], desired: Iterable[Child]
) -> Problem | None:
    """The first desired child whose name another object has; None without one.

    Such an object is never touched: it belongs to a user, or to a deleted server of the same name
    whose children the garbage collector has not deleted yet.
    """
    conflicting = foreign(children, server)
    for one in desired:
        if one in conflicting:
            return _problem(server, one, children[one])
    return None


def _problem(server: LlamaServer, one: Child, item: Manifest) -> Problem:
    kind, name = one
    owners = item["metadata"].get("ownerReferences") or []
    if any(owner["kind"] == KIND and owner["name"] == server.name for owner in owners):
        message = f"{kind.kind} {name} of the previous server of this name is still terminating"
        return Problem(Reason.WAITING_FOR_DELETION, message)
    if owners:
        owner = f"{owners[0]['kind']} {owners[0]['name']}"
        message = f"{kind.kind} {name} exists and is owned by {owner}: delete or rename one of them"
        return Problem(Reason.NAME_CONFLICT, message)
    place = f"--namespace={server.namespace} {kind.plural}/{name}"
    labels = (
        f"{names.SERVER_LABEL}={server.name} {names.MANAGED_BY_LABEL}={FIELD_MANAGER} --overwrite"
    )
    return Problem(
        Reason.NAME_CONFLICT,
        f"{kind.kind} {name} exists and is not owned by this server: rename one of the two, delete "
        f"it (kubectl delete {place}), or let this server adopt and overwrite it "
        f"(kubectl label {place} {labels})",
    )
