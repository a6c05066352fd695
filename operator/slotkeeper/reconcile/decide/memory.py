"""What is written while there is no choice for `auto`. Pure."""

from collections.abc import Mapping, Sequence

from slotkeeper.desired import names
from slotkeeper.desired.names import Component
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, STATEFUL_SETS
from slotkeeper.kube.objects import Child, child

_WORKLOADS = (DEPLOYMENTS, STATEFUL_SETS)


def without_workloads(
    desired: Sequence[Manifest], children: Mapping[Child, Manifest]
) -> tuple[list[Manifest], dict[Child, Manifest]]:
    """Return the desired and the observed children without Deployments and StatefulSets: existing
    ones stay as they are, and of others only the balancers are created, which queue requests."""
    kept = {one: item for one, item in children.items() if one[0] not in _WORKLOADS}
    written = [
        manifest
        for manifest in desired
        if child(manifest)[0] not in _WORKLOADS
        or (_is_of_balancers(manifest) and child(manifest) not in children)
    ]
    return written, kept


def _is_of_balancers(manifest: Manifest) -> bool:
    labels = manifest["metadata"]["labels"]
    return bool(labels[names.COMPONENT_LABEL] == Component.BALANCER.value)
