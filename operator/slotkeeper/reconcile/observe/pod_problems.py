"""What keeps pods from running. Pure."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from signal import Signals

from slotkeeper.api.compute_capability import AUTO
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.placement import QUEUE_LABEL
from slotkeeper.api.problem_reasons import DOWNLOAD_REASONS, Reason
from slotkeeper.desired import names
from slotkeeper.desired.llama_container import READINESS_FAILURES, READINESS_PERIOD_SECONDS
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import STATEFUL_SETS, kind_of
from slotkeeper.llamacpp.diagnosis.diagnose import Diagnosis, diagnose_end
from slotkeeper.llamacpp.log import ending
from slotkeeper.reconcile.observe.node_cache import pod_security_remedy
from slotkeeper.reconcile.observe.pod_templates import current_replica_sets
from slotkeeper.reconcile.observe.pods import (
    condition,
    container_statuses,
    download_status,
    is_ready,
    is_unschedulable,
    parse_termination_message,
)
from slotkeeper.reconcile.observe.problem import Problem
from slotkeeper.reconcile.observe.worker_images import different_images

RESTART_RESET = timedelta(minutes=10)
"""A container that ran for longer can start: the kubelet resets its back-off, too."""

_LEAST_UNREADY = timedelta(seconds=READINESS_PERIOD_SECONDS * (READINESS_FAILURES - 1))
"""From the start of a llama-server to its first readiness that ends: a pod that is not ready since
an earlier time was never ready. The kubelet may report it only after the start."""

MAX_TEXT = 1024
"""Characters of a container's own text that a message contains. The kubelet allows 4096 bytes."""


_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}

_LLAMA_CPP = {names.LLAMA_SERVER_CONTAINER, names.WORKER_CONTAINER}
"""Containers whose ends are diagnosed: those of others are the operator's own programs."""

_KILLED_BY = "by its liveness probe if it did not respond, or from outside; see its pod's events"
_MORE_MEMORY = {
    names.LLAMA_SERVER_CONTAINER: (
        "increase resources.limits.memory, or decrease slots or contextPerSlot"
    ),
    names.DOWNLOAD_CONTAINER: "increase model.download.resources.limits.memory",
    names.WAIT_CONTAINER: "increase resources.limits.memory",
    names.WORKER_CONTAINER: "increase workers.resources.limits.memory",
    names.BALANCER_CONTAINER: "increase balancer.resources.limits.memory",
    names.BATCHES_CONTAINER: "increase batches.resources.limits.memory",
}
"""What to do where a container used more memory than its limit."""


def pods_problem(
    pods: Sequence[Manifest], gpu: Gpu, arches: Sequence[str] | None, too_small_memory: str
) -> Problem | None:
    """The first problem of these pods, in a cluster with the compute capabilities `arches`, where
    `too_small_memory` says why no node has `gpu.minMemory`."""
    problem = first_problem(pods, gpu)
    if problem and problem.reason is Reason.UNSCHEDULABLE:
        return no_matching_node(gpu, arches, too_small_memory) or problem
    different = different_images(pods)
    if problem and problem.reason is Reason.CRASH_LOOP_BACK_OFF and different:
        return Problem(problem.reason, f"{problem.message}; {different}")
    return problem


def first_problem(pods: Iterable[Manifest], gpu: Gpu) -> Problem | None:
    """The first problem of these pods; None where each is ready or may become so."""
    problems = (pod_problem(pod, gpu) for pod in pods if not is_ready(pod))
    return next(filter(None, problems), None)


def pod_problem(pod: Manifest, gpu: Gpu) -> Problem | None:
    """What keeps this pod from becoming ready; None where it is nothing, or nothing but time."""
    return (
        _gated(pod)
        or _unschedulable(pod, gpu)
        or _unresponsive(pod)
        or next(filter(None, map(_container_problem, container_statuses(pod))), None)
    )


def model_problem(pod: Manifest) -> Problem | None:
    """Why this pod has not downloaded its model; None where it has, or may still do so."""
    return _container_problem(download_status(pod))


def is_crash_looping(pod: Manifest) -> bool:
    """Whether one of its containers was restarted and ended again soon after its start."""
    return any(map(_is_looping, container_statuses(pod)))


def creation_failure(
    owners: Iterable[Manifest | None], replica_sets: Sequence[Manifest]
) -> Problem | None:
    """Why one of these Deployments and StatefulSets cannot create its pods, such as a quota or an
    admission policy."""
    found = (_creation_failure(each, replica_sets) for each in owners if each)
    return next(filter(None, found), None)


def no_matching_node(
    gpu: Gpu, arches: Sequence[str] | None, too_small_memory: str
) -> Problem | None:
    """The problem where no node of the cluster has GPUs of `gpu.computeArch` or `gpu.minMemory`.

    None where one has, or (`arches` is None) where the cluster's are not known.
    """
    # What auto stands for is chosen again while no replica has a node.
    if gpu.compute_arch in (None, AUTO) or arches is None or gpu.compute_arch in arches:
        if too_small_memory:
            return Problem(Reason.NO_MATCHING_NODE, too_small_memory)
        return None
    available = (
        f"the cluster has {', '.join(arches)}"
        if arches
        else "no node has the label that GPU feature discovery writes"
    )
    message = f"no node has GPUs of compute capability {gpu.compute_arch}: {available}"
    return Problem(Reason.NO_MATCHING_NODE, message)


def _creation_failure(owner: Manifest, replica_sets: Sequence[Manifest]) -> Problem | None:
    if kind_of(owner) != STATEFUL_SETS:
        # The Deployment's own condition keeps the message of its first ReplicaSet that failed.
        current = current_replica_sets(owner, replica_sets)
        return next(filter(None, map(_failure_of_replica_set, current)), None)
    # It has no such condition. But its controller creates all pods before it reports their number.
    metadata, status = owner["metadata"], owner.get("status", {})
    desired, created = owner["spec"].get("replicas", 1), status.get("replicas", 0)
    if status.get("observedGeneration", 0) < metadata["generation"] or created >= desired:
        return None
    name = metadata["name"]
    return Problem(
        Reason.FAILED_CREATE,
        f"StatefulSet {name} could create {created} of {desired} pods only: see the events of "
        f"kubectl describe --namespace={metadata['namespace']} statefulsets/{name}",
    )


def _failure_of_replica_set(replica_set: Manifest) -> Problem | None:
    failure = condition(replica_set, "ReplicaFailure")
    lacks_pods = replica_set["status"]["replicas"] < replica_set["spec"]["replicas"]
    if failure.get("status") != "True" or not lacks_pods:
        return None
    message = failure.get("message", "")
    return Problem(Reason.FAILED_CREATE, message + pod_security_remedy(message))


def _gated(pod: Manifest) -> Problem | None:
    """What a pod waits for before it is scheduled: no fault, but a quota, for example."""
    gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
    if not gates:
        return None
    if not all(gate.startswith(names.KUEUE_GATE) for gate in gates):
        message = f"waiting for scheduling gates to be removed: {', '.join(gates)}"
        return Problem(Reason.SCHEDULING_GATED, message)
    metadata = pod["metadata"]
    queue = (metadata.get("labels") or {}).get(QUEUE_LABEL)
    name = f" to queue {queue}" if queue else ""
    return Problem(
        Reason.SCHEDULING_GATED,
        f"waiting for admission by Kueue{name}: see kubectl describe "
        f"--namespace={metadata['namespace']} workloads.kueue.x-k8s.io",
    )


def _unschedulable(pod: Manifest, gpu: Gpu) -> Problem | None:
    if not is_unschedulable(pod):
        return None
    message = condition(pod, "PodScheduled").get("message", "")
    if gpu.count and f"Insufficient {gpu.resource_name}" in message:
        message = f"waiting for {gpu.count} {gpu.resource_name}: {message}"
    return Problem(Reason.UNSCHEDULABLE, message)


def _unresponsive(pod: Manifest) -> Problem | None:
    """The problem of a llama-server that was ready and is not any more, though it runs."""
    status = next(
        (each for each in container_statuses(pod) if each["name"] == names.LLAMA_SERVER_CONTAINER),
        {},
    )
    started = status.get("state", {}).get("running", {}).get("startedAt")
    since = condition(pod, "Ready").get("lastTransitionTime")
    if not (status.get("started") and started and since) or status.get("ready"):
        return None
    if datetime.fromisoformat(since) - datetime.fromisoformat(started) < _LEAST_UNREADY:
        return None
    return unresponsive([pod["metadata"]["name"]], "/health")


def unresponsive(replicas: Iterable[str], path: str) -> Problem:
    """The problem of replicas that run and do not respond on `path`."""
    listed = ", ".join(sorted(replicas))
    message = f"replica {listed} does not respond on {path}: see its log; it is restarted after "
    return Problem(Reason.REPLICA_UNRESPONSIVE, message + "unresponsiveSeconds")


def _is_looping(status: Manifest) -> bool:
    state = status.get("state", {})
    backing_off = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    restarted = backing_off or status.get("restartCount", 0) > 1
    if status.get("ready") or not ended or not restarted:
        return False
    times = [ended.get(name) for name in ("startedAt", "finishedAt")]
    if not all(times):
        return True
    # A container that ran for long may run again.
    started, finished = map(datetime.fromisoformat, times)
    return finished - started < RESTART_RESET


def _container_problem(status: Manifest) -> Problem | None:
    state = status.get("state", {})
    waiting = state.get("waiting", {})
    if waiting.get("reason") in _IMAGE_REASONS:
        cause = waiting.get("message") or waiting["reason"]
        return Problem(Reason.IMAGE_PULL_BACK_OFF, f"cannot pull image {status['image']}: {cause}")
    if waiting.get("reason") in {"CreateContainerConfigError", "CreateContainerError"}:
        return _creation_error(waiting.get("message", ""))
    if status.get("ready"):
        return None
    # During a retry the last failure is still the best explanation.
    terminated = state.get("terminated") or status.get("lastState", {}).get("terminated")
    if not terminated or terminated.get("exitCode") == 0:
        return None
    return _failure(status["name"], terminated)


def _creation_error(message: str) -> Problem:
    missing = re.fullmatch(r'secret "(\S+)" not found', message)
    if missing is None:
        return Problem(Reason.CREATE_CONTAINER_ERROR, message + _advice(diagnose_end(message)))
    return Problem(
        Reason.SECRET_NOT_FOUND,
        f"Secret {missing[1]} not found: create it in the server's namespace (podTemplate.env)",
    )


def _failure(name: str, terminated: Manifest) -> Problem:
    if terminated.get("reason") == "OOMKilled":
        remedy = _MORE_MEMORY.get(name, "increase its memory limit")
        return Problem(Reason.OOM_KILLED, f"{name} was killed: out of memory; {remedy}")
    if name == names.DOWNLOAD_CONTAINER:
        return _download_failure(terminated)
    code = terminated.get("exitCode", 0)
    known = diagnose_end(terminated.get("message", ""), code) if name in _LLAMA_CPP else None
    ended = f"{name} {_exit(terminated, known)}{_advice(known)}"
    return Problem(Reason.CRASH_LOOP_BACK_OFF, ended)


def _download_failure(terminated: Manifest) -> Problem:
    unexplained = Problem(Reason.MODEL_DOWNLOAD_FAILED, f"the model's download {_exit(terminated)}")
    # Any image may have written it: only the reasons of a download are accepted.
    report = parse_termination_message(terminated) or {}
    reason, message = str(report.get("reason")), report.get("message")
    if reason not in DOWNLOAD_REASONS or message is None:
        return unexplained
    return Problem(Reason(reason), _text(str(message)))


def _exit(terminated: Manifest, known: Diagnosis | None = None) -> str:
    code = terminated.get("exitCode", 0)
    if code == 128 + Signals.SIGKILL:
        # Its log ends anywhere.
        return f"was killed (SIGKILL): {_KILLED_BY}"
    ended = f"exited with code {code}"
    with suppress(ValueError):
        ended = f"was terminated by signal {Signals(code - 128).name}"
    line = (known and known.line) or ending(terminated.get("message", ""))
    return f"{ended}{f': {_text(line)}' if line else ''}"


def _advice(found: Diagnosis | None) -> str:
    return f"; {found.advice}" if found else ""


def _text(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
