"""Which pods of a server download its model now. Pure."""

from slotkeeper.desired import names
from slotkeeper.reconcile.observe.model import current_pods
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import address, is_downloading


def progress_addresses(observed: Observed) -> dict[str, str]:
    """HOST:PORT of the progress of each pod whose download runs, by the pod's uid."""
    return {
        pod["metadata"]["uid"]: address(pod, names.PROGRESS_PORT)
        for pod in (*current_pods(observed), *observed.prefetch_pods)
        if is_downloading(pod) and pod["status"].get("podIP")
    }
