"""Objects with the names of a server's children that the server does not own. Pure."""

from collections.abc import Iterable, Mapping

from slotkeeper.api.group import KIND
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Child, owned
from slotkeeper.reconcile.observe.problem import Problem


def not_owned(children: Mapping[Child, Manifest], server: LlamaServer) -> set[Child]:
    """Those of the observed objects that the server does not own."""
    return {one for one, item in children.items() if not owned(item, server.uid)}


def name_conflict(
    server: LlamaServer, children: Mapping[Child, Manifest], desired: Iterable[Child]
) -> Problem | None:
    """The first desired child whose name another object has; None without one.

    Such an object is never touched: it belongs to a user, or to a deleted server of the same name
    whose children the garbage collector has not deleted yet.
    """
    conflicting = not_owned(children, server)
    for one in desired:
        if one not in conflicting:
            continue
        name = f"{one[0].kind} {one[1]}"
        owners = children[one]["metadata"].get("ownerReferences") or []
        if any(owner["kind"] == KIND and owner["name"] == server.name for owner in owners):
            message = f"{name} of the previous server of this name is still terminating"
            return Problem(Reason.WAITING_FOR_DELETION, message)
        message = f"{name} exists and is not owned by this server: delete or rename one of the two"
        return Problem(Reason.NAME_CONFLICT, message)
    return None
