"""What the Job that downloads a server's model, and its pods, show. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.conditions import condition as reported
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import DOWNLOAD_REASONS, Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.missing_secrets import missing_secret
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pod_problems import first_problem
from slotkeeper.reconcile.observe.pods import condition, created
from slotkeeper.reconcile.observe.problem import Problem

RETRY_AFTER = timedelta(minutes=10)
"""From the failure of a Job, whose tries all failed for a reason that may pass, to the next Job."""

RETRY_REJECTED_AFTER = timedelta(hours=1)
"""The same where a user has to do something: it may be in a Secret or at the host of the model,
where the operator does not see it."""

_NO_GPU = Gpu(count=0)

_NOT_STARTED = frozenset({Reason.UNSCHEDULABLE, Reason.FAILED_CREATE})
"""Reasons that concern the Job's pod only: a replica may start nevertheless."""

FAILURES = DOWNLOAD_REASONS | {Reason.MODEL_DOWNLOAD_FAILED}
"""Reasons of a download that has failed."""


class Phase(StrEnum):
    """Phase of a prefetch Job."""

    RUNNING = "Running"
    """Or waiting for a node, or between two tries."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """There is no further try."""


@dataclass(frozen=True)
class PrefetchState:
    """State of a server's prefetch Job."""

    phase: Phase
    problem: Problem | None = None
    """Why the model is not downloaded yet; a reason that only waits is possible."""
    delayed: str = ""
    """Why its pod has not started, where a replica's may; empty if it has."""

    @property
    def blocker(self) -> Problem | None:
        """The problem that a replica will have, too, as far as it is known."""
        known = self.problem and self.problem.reason in {*FAILURES, Reason.SECRET_NOT_FOUND}
        return self.problem if known else None


def phase(job: Manifest) -> Phase:
    """The phase of a Job."""
    if condition(job, "Complete").get("status") == "True":
        return Phase.SUCCEEDED
    # FailureTarget: Kubernetes still terminates its pods.
    failed = any(condition(job, kind).get("status") == "True" for kind in _FAILED)
    return Phase.FAILED if failed else Phase.RUNNING


_FAILED = ("Failed", "FailureTarget")


def prefetch_state(server: LlamaServer, observed: Observed, wall: datetime) -> PrefetchState | None:
    """The state of the server's prefetch Job at the time of day `wall`; None without a Job."""
    job = observed.prefetch_job
    if job is None:
        return None
    now = phase(job)
    if now is Phase.SUCCEEDED:
        return PrefetchState(now)
    pods = tries(observed.prefetch_pods)
    problem = first_problem(pods, _NO_GPU) or missing_secret(pods, server, wall)
    problem = problem or creation_failure(job, pods)
    if problem and problem.reason in _NOT_STARTED:
        return PrefetchState(now, delayed=problem.message)
    problem = problem or reported_failure(server, of_any_generation=now is Phase.FAILED)
    if problem is None and now is Phase.FAILED:
        problem = _unexplained(job)
    return PrefetchState(now, problem)


def tries(pods: Iterable[Manifest]) -> list[Manifest]:
    """These pods of a Job, the newest one first, without those that were evicted: what ended them
    is no problem of the download."""
    newest_first = sorted(pods, key=created, reverse=True)
    return [
        pod for pod in newest_first if condition(pod, "DisruptionTarget").get("status") != "True"
    ]


def creation_failure(job: Manifest, pods: Sequence[Manifest]) -> Problem | None:
    """Why the Job has no pod. No condition shows it; its controller creates the first one in the
    same step in which it sets the start time."""
    status = job.get("status") or {}
    tried = any(status.get(count) for count in ("active", "failed", "succeeded", "terminating"))
    if pods or tried or "startTime" not in status:
        return None
    metadata = job["metadata"]
    return Problem(
        Reason.FAILED_CREATE,
        f"Job {metadata['name']} has no pod yet: a quota or an admission policy may reject it, see "
        f"the events of kubectl describe --namespace={metadata['namespace']} "
        f"jobs/{metadata['name']}",
    )


def retry_in(job: Manifest, wall: datetime) -> float | None:
    """Seconds until a failed Job should be replaced by another one; 0 where it should be now.

    None where it has not failed.
    """
    failed = condition(job, "Failed")
    if failed.get("status") != "True":
        return None
    since = failed.get("lastTransitionTime")
    delay = RETRY_REJECTED_AFTER if is_rejected(job) else RETRY_AFTER
    due = datetime.fromisoformat(since) + delay if since else wall
    return max(0.0, (due - wall).total_seconds())


def is_rejected(job: Manifest) -> bool:
    """Whether a failed Job ended because a user has to do something."""
    return bool(condition(job, "Failed").get("reason") == "PodFailurePolicy")


def reported_failure(server: LlamaServer, *, of_any_generation: bool) -> Problem | None:
    """The failure in the status.

    It still explains most until the next try ends. And the pods that showed it may have been
    deleted, with their node.
    """
    before = reported(server.status, ConditionType.MODEL_READY)
    if not of_any_generation and before.get("observedGeneration") != server.generation:
        # What is downloaded may be another file.
        return None
    if before.get("status") != "False" or before.get("reason") not in FAILURES:
        return None
    return Problem(Reason(before["reason"]), before["message"])


def _unexplained(job: Manifest) -> Problem:
    cause = condition(job, "Failed").get("message") or "no reason given"
    return Problem(Reason.MODEL_DOWNLOAD_FAILED, f"Job {job['metadata']['name']} failed: {cause}")
