"""Whether the Job that downloads a server's model should exist. Pure."""

from datetime import datetime
from enum import Enum, auto

from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.objects import owned
from slotkeeper.reconcile.decide.replicas import DesiredReplicas
from slotkeeper.reconcile.observe.model import current_pods
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pod_templates import template_hash
from slotkeeper.reconcile.observe.pods import condition, is_unschedulable, model_downloaded
from slotkeeper.reconcile.observe.prefetch import Phase, phase, retry_in

_OCCUPIED = (
    "Insufficient cpu",
    "Insufficient memory",
    "Insufficient ephemeral-storage",
    "Too many pods",
    "ReadWriteOncePod",
)
"""In the scheduler's message: what a Job's pod may occupy."""


class Prefetch(Enum):
    """What happens with a server's prefetch Job."""

    NONE = auto()
    """There should be none: one that exists is deleted."""
    RUN = auto()
    """There should be one as it is desired."""
    KEEP = auto()
    """The one that exists stays as it is: its end is what is remembered of the download."""


def decide_prefetch(
    server: LlamaServer,
    observed: Observed,
    job: Manifest | None,
    desired: DesiredReplicas,
    wall: datetime,
) -> Prefetch:
    """Decide on the Job; `job` is the desired one, None where the server has none.

    | the Job | and | decision |
    |---|---|---|
    | not desired | | none |
    | missing | no replica is desired, and none is left | run |
    | missing | otherwise: a replica downloads by itself | none |
    | has succeeded | | keep |
    | has failed | of another spec, or long ago (`retry_in`) | none, then another one |
    | has failed | a replica has downloaded the model | none: the next one will confirm it |
    | has failed | otherwise | keep |
    | is running | of another spec | none, then another one |
    | is running | the server is suspended, or a replica needs what it occupies | none |
    | is running | otherwise | run |
    """
    if job is None:
        return Prefetch.NONE
    existing = observed.prefetch_job
    if existing is None:
        # A pod that is about to terminate would end the Job again.
        has_replica = desired.replicas > 0 or bool(observed.replica_pods)
        return Prefetch.NONE if has_replica or server.spec.suspend else Prefetch.RUN
    now = phase(existing)
    if now is Phase.SUCCEEDED:
        # One without an owner, restored from a backup, is adopted if its spec allows it.
        adopted = not owned(existing, server.uid) and template_hash(existing) == template_hash(job)
        return Prefetch.RUN if adopted else Prefetch.KEEP
    if template_hash(existing) != template_hash(job):
        return Prefetch.NONE
    if now is Phase.FAILED:
        downloaded = any(map(model_downloaded, current_pods(observed)))
        obsolete = downloaded or retry_in(existing, wall) == 0
        return Prefetch.NONE if obsolete else Prefetch.KEEP
    obstructs = any(map(_is_obstructed, observed.replica_pods))
    return Prefetch.NONE if server.spec.suspend or obstructs else Prefetch.RUN


def _is_obstructed(pod: Manifest) -> bool:
    """Whether a running Job may keep this pod of a replica from starting.

    With a node, it may wait for the volume, which is attached to the node of the Job's pod. Without
    one, it may lack what the Job's pod occupies. While it waits for something else, such as a GPU,
    the download goes on.
    """
    if pod["spec"].get("nodeName"):
        return True
    message = condition(pod, "PodScheduled").get("message", "")
    return is_unschedulable(pod) and any(each in message for each in _OCCUPIED)
