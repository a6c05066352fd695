"""The ServiceAccounts of balancers and gateways. Pure."""

from collections.abc import Mapping

from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import SERVICE_ACCOUNTS
from slotkeeper.kube.objects import Child


def account_uid(
    name: str, children: Mapping[Child, Manifest], deployment: Manifest | None
) -> str | None:
    """The uid of the ServiceAccount of this name; None where neither it nor its pods exist yet.

    `deployment`: the one whose pods use it, if it exists.
    """
    if account := children.get((SERVICE_ACCOUNTS, name)):
        return str(account["metadata"]["uid"])
    # It was deleted: the pods stay until it exists again.
    if deployment is None:
        return None
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(names.ACCOUNT_UID_ANNOTATION, ""))
