"""Objects with the names of a resource's children that do not belong to it. Pure."""

from collections.abc import Iterable, Mapping

from slotkeeper.api.group import FIELD_MANAGER
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.resource import Resource
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import Child
from slotkeeper.reconcile.observe.ownership import belongs_to
from slotkeeper.reconcile.observe.problem import Problem


def foreign(children: Mapping[Child, Manifest], owner: Resource) -> set[Child]:
    """Those of the observed objects that the operator must not change."""
    return {one for one, item in children.items() if not belongs_to(item, owner)}


def name_conflict(
    owner: Resource, children: Mapping[Child, Manifest], desired: Iterable[Child]
) -> Problem | None:
    """The first desired child whose name another object has; None without one.

    Such an object is never touched: it belongs to a user, or to a deleted resource of the same name
    whose children the garbage collector has not deleted yet.
    """
    conflicting = foreign(children, owner)
    for one in desired:
        if one in conflicting:
            return _problem(owner, one, children[one])
    return None


def _problem(owner: Resource, one: Child, item: Manifest) -> Problem:
    kind, name = one
    owners = item["metadata"].get("ownerReferences") or []
    if any(each["kind"] == owner.kind and each["name"] == owner.name for each in owners):
        message = (
            f"{kind.kind} {name} of the previous {owner.noun} of this name is still terminating"
        )
        return Problem(Reason.WAITING_FOR_DELETION, message)
    if owners:
        other = f"{owners[0]['kind']} {owners[0]['name']}"
        message = f"{kind.kind} {name} exists and is owned by {other}: delete or rename one of them"
        return Problem(Reason.NAME_CONFLICT, message)
    place = f"--namespace={owner.namespace} {kind.plural}/{name}"
    labels = (
        f"{names.OWNER_LABELS[owner.kind]}={owner.name} "
        f"{names.MANAGED_BY_LABEL}={FIELD_MANAGER} --overwrite"
    )
    return Problem(
        Reason.NAME_CONFLICT,
        f"{kind.kind} {name} exists and is not owned by this {owner.noun}: rename one of the two, "
        f"delete it (kubectl delete {place}), or let this {owner.noun} adopt and overwrite it "
        f"(kubectl label {place} {labels})",
    )
