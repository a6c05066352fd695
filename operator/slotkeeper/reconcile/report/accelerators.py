"""The condition AcceleratorReady, and known vulnerabilities of the replicas' builds. Pure."""

from collections.abc import Collection, Iterable, Mapping

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition
from slotkeeper.api.problem_reasons import ACCELERATOR_REASONS, Reason
from slotkeeper.api.resources import Resources
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.llamacpp.diagnosis.diagnose import Diagnosis
from slotkeeper.llamacpp.known_builds import Exposure, advisories, build_number
from slotkeeper.reconcile.accelerators.tracker import LogResult, StartedContainer
from slotkeeper.reconcile.observe.accelerators import (
    ended_by_accelerator,
    replicas_pods,
    started_containers,
)
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.problem import Problem

KIND = ConditionType.ACCELERATOR_READY

KEPT = {Reason.DEVICES_FOUND, *ACCELERATOR_REASONS}
"""Reasons that hold until something else is known of the same container."""

INCONCLUSIVE = (
    "its log does not show devices: its start is not there any more, or llama-server logs less "
    "than level 4"
)

LogResults = Mapping[str, LogResult]
"""What is known of the logs of replicas, by the container's id."""


def accelerator_condition(
    server: LlamaServer, observed: Observed, results: LogResults
) -> tuple[ConditionValue, Problem | None]:
    """Return the condition of a server with accelerators, and a problem to fix.

    | what is known | status | reason |
    |---|---|---|
    | a container ended, or cannot be created, because of its accelerator | False | why |
    | a llama-server does not use its accelerators as requested | False | why |
    | a llama-server does | True | DevicesFound |
    | logs were read, and show nothing, or cannot be read | Unknown | LogUnavailable |
    | no log was read yet | Unknown | Starting |
    | no llama-server of the current spec runs | Unknown | NoReplica |

    Before anything is known of a container, its last verdict is kept: an operator that starts has
    read no log, and the start of an old one may be gone.
    """
    if ended := ended_by_accelerator(replicas_pods(observed)):
        return _false(*ended)
    started = started_containers(server, observed)
    reports = [
        (each.pod, result.report)
        for each in started
        if (result := results.get(each.id)) and result.report
    ]
    for pod, report in reports:
        if report.diagnosis:
            return _false(pod, report.diagnosis)
    for pod, report in reports:
        if report.devices:
            message = f"replica {pod} uses {report.summary}"
            return ConditionValue(KIND, "True", Reason.DEVICES_FOUND, message), None
    if not started:
        message = "no replica of the current spec is ready"
        return ConditionValue(KIND, "Unknown", Reason.NO_REPLICA, message), None
    return _unknown(server, observed, started, results)


def build_problem(
    server: LlamaServer, builds: Iterable[str] | None, accepted: Collection[str]
) -> Problem | None:
    """The problem of replicas of builds with published vulnerabilities that the server is exposed
    to; `accepted`: ids of those that are no problem.

    Without a report of the builds (None) the last one is kept.
    """
    if builds is None:
        before = condition(server.status, ConditionType.DEGRADED)
        reason = Reason.KNOWN_VULNERABLE_BUILD
        return Problem(reason, before["message"]) if before.get("reason") == reason else None
    numbers = {number for build in builds if (number := build_number(build))}
    for number in sorted(numbers):
        found = advisories(number, exposures(server), accepted)
        if not found:
            continue
        listed = "; ".join(
            f"{each.id}: {each.title}" + (f" (fixed in b{each.fixed})" if each.fixed else "")
            for each in found
        )
        return Problem(
            Reason.KNOWN_VULNERABLE_BUILD,
            f"llama-server b{number} has published vulnerabilities: {listed}; use a newer image, "
            f"or accept them in the annotation {names.ACCEPTED_ADVISORIES_ANNOTATION}",
        )
    return None


def exposures(server: LlamaServer) -> set[Exposure]:
    """What a server exposes of llama.cpp."""
    found = {Exposure.MODEL, Exposure.REQUEST}
    if server.spec.prompt_cache:
        found.add(Exposure.PROMPT_CACHE)
    if server.spec.workers:
        found.add(Exposure.WORKERS)
        sets = (server.spec.resources, server.spec.workers.resources or Resources())
        if any("rdma" in name for each in sets for name in (*each.limits, *each.requests)):
            found.add(Exposure.RDMA_WORKERS)
    return found


def accepted_advisories(raw: Manifest) -> frozenset[str]:
    """The ids in the annotation of a server: separated by commas or spaces."""
    annotations = raw["metadata"].get("annotations") or {}
    value = annotations.get(names.ACCEPTED_ADVISORIES_ANNOTATION)
    return frozenset(value.replace(",", " ").split()) if isinstance(value, str) else frozenset()


def _unknown(
    server: LlamaServer,
    observed: Observed,
    started: Iterable[StartedContainer],
    results: LogResults,
) -> tuple[ConditionValue, Problem | None]:
    before = condition(server.status, KIND)
    if before.get("reason") in KEPT and _is_of_present(before, observed):
        reason, message = Reason(before["reason"]), before["message"]
        problem = Problem(reason, message) if before["status"] == "False" else None
        return ConditionValue(KIND, before["status"], reason, message), problem
    known = [(each, result) for each in started if (result := results.get(each.id))]
    if not known:
        message = "the log of no replica has been read yet"
        return ConditionValue(KIND, "Unknown", Reason.STARTING, message), None
    first, result = known[0]
    why = f"its log cannot be read: {result.error}" if result.error else INCONCLUSIVE
    message = f"replica {first.pod}: {why}"
    return ConditionValue(KIND, "Unknown", Reason.LOG_UNAVAILABLE, message), None


def _is_of_present(before: Mapping[str, str], observed: Observed) -> bool:
    """Whether a verdict was about llama-servers that still run, as their starts before it show.

    False may have been about any of them. True needs one: others may have been added since.
    Kubernetes' timestamps sort as text.
    """
    starts = [
        status.get("state", {}).get("running", {}).get("startedAt")
        for pod in replicas_pods(observed)
        for status in pod.get("status", {}).get("containerStatuses") or ()
        if status["name"] == names.LLAMA_SERVER_CONTAINER and status.get("ready")
    ]
    time = before["lastTransitionTime"]
    found = (start is not None and start <= time for start in starts)
    return any(found) if before["status"] == "True" else all(found)


def _false(pod: str, diagnosis: Diagnosis) -> tuple[ConditionValue, Problem]:
    line = f": {diagnosis.line}" if diagnosis.line else ""
    problem = Problem(Reason(diagnosis.reason), f"replica {pod}{line}; {diagnosis.advice}")
    return ConditionValue(KIND, "False", problem.reason, problem.message), problem
