"""What the Job that reads the headers of a server's files, and its pods, show. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.memory import MAX_UNPLANNABLE, Header, is_record
from slotkeeper.reconcile.observe.missing_secrets import missing_secret
from slotkeeper.reconcile.observe.pod_problems import first_problem
from slotkeeper.reconcile.observe.pods import (
    condition,
    created,
    download_status,
    parse_termination_message,
)
from slotkeeper.reconcile.observe.prefetch import (
    RETRY_AFTER,
    Phase,
    creation_failure,
    is_rejected,
    phase,
    retry_in,
    tries,
)
from slotkeeper.reconcile.observe.problem import Problem

_NO_GPU = Gpu(count=0)

REPORT_TIMEOUT = timedelta(seconds=15)
"""From the success of a Job to the report of its pod: it is another watch that shows it."""


def read_header(pods: Sequence[Manifest]) -> Header | None:
    """What the newest of these pods that succeeded reported; None where none has, or it is no
    report."""
    ended = _success(pods)
    return None if ended is None else _header(parse_termination_message(ended) or {})


def failure(job: Manifest | None, pods: Sequence[Manifest], wall: datetime) -> Problem | None:
    """Why a Job, with these pods, has not reported headers; None where it may still do so."""
    if job is None or phase(job) is Phase.RUNNING or report_missing_in(job, pods, wall):
        return None
    problem = _failure(job, pods)
    return replace(problem, message=problem.message + _next_try(job))


def delay(
    job: Manifest | None, pods: Sequence[Manifest], server: LlamaServer, wall: datetime
) -> Problem | None:
    """What keeps a Job, with these pods, from reporting headers, which it may do later."""
    if job is None or phase(job) is not Phase.RUNNING:
        return None
    if condition(job, "Suspended").get("status") == "True":
        name = job["metadata"]["name"]
        message = f"Job {name} is suspended, as by Kueue before it is admitted"
        return Problem(Reason.SCHEDULING_GATED, message)
    newest_first = tries(pods)
    return (
        first_problem(newest_first, _NO_GPU)
        or missing_secret(newest_first, server, wall)
        or creation_failure(job, newest_first)
    )


def report_missing_in(job: Manifest, pods: Sequence[Manifest], wall: datetime) -> float | None:
    """Seconds until a Job that has succeeded counts as without a report; None where it has not, or
    a pod shows its report."""
    if phase(job) is not Phase.SUCCEEDED or _success(pods) is not None:
        return None
    return _left(job, REPORT_TIMEOUT, wall)


def inspects_again_in(job: Manifest, wall: datetime) -> float | None:
    """Seconds until a Job that has ended without a report should be replaced by another one; None
    where it has not ended."""
    if phase(job) is not Phase.SUCCEEDED:
        return retry_in(job, wall)
    return _left(job, RETRY_AFTER, wall)


def _failure(job: Manifest, pods: Sequence[Manifest]) -> Problem:
    name = job["metadata"]["name"]
    if phase(job) is Phase.SUCCEEDED:
        return Problem(Reason.HEADER_UNAVAILABLE, f"Job {name} has left no report")
    if problem := first_problem(tries(pods), _NO_GPU):
        return problem
    cause = condition(job, "Failed").get("message") or "no reason given"
    return Problem(Reason.HEADER_UNAVAILABLE, f"Job {name} failed: {cause}")


def _next_try(job: Manifest) -> str:
    # Without a time of day, which would make each failure another event.
    metadata = job["metadata"]
    when = "an hour" if is_rejected(job) else "ten minutes"
    delete = f"kubectl delete --namespace={metadata['namespace']} jobs/{metadata['name']}"
    return f"; it is tried again within {when}, or at once after {delete}"


def _left(job: Manifest, after: timedelta, wall: datetime) -> float:
    """Seconds until so long after the success of a Job."""
    ended = (job.get("status") or {}).get("completionTime")
    due = datetime.fromisoformat(ended) + after if ended else wall
    return max(0.0, (due - wall).total_seconds())


def _success(pods: Sequence[Manifest]) -> Manifest | None:
    """How the newest of these pods that succeeded ended; None where none has."""
    for pod in sorted(pods, key=created, reverse=True):
        terminated: Manifest = download_status(pod).get("state", {}).get("terminated", {})
        if terminated.get("exitCode", 1) == 0:
            return terminated
    return None


def _header(message: Mapping[str, Any]) -> Header | None:
    record, unplannable = message.get("record"), message.get("unplannable")
    if isinstance(record, str) and is_record(record):
        return Header(record)
    if isinstance(unplannable, str) and unplannable:
        return Header(unplannable=unplannable[:MAX_UNPLANNABLE])
    return None
