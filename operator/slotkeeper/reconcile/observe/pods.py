"""What is wrong with a pod, if anything, in words for people. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from slotkeeper.api.gpu import Gpu
from slotkeeper.api.model import TokenSecret
from slotkeeper.api.problem_reasons import DOWNLOAD_REASONS, Reason
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest

LOOP = timedelta(minutes=10)
"""A container that ran for longer is none that cannot start. The kubelet forgives as soon."""

_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}


@dataclass(frozen=True)
class Problem:
    """Why something does not run: a reason for programs, a sentence for people."""

    reason: Reason
    message: str


def is_ready(pod: Manifest) -> bool:
    """Whether the pod serves."""
    return _condition(pod, "Ready").get("status") == "True"


def address(pod: Manifest, port: int) -> str:
    """HOST:PORT of a pod that has an address."""
    host = pod["status"]["podIP"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def first_problem(pods: Sequence[Manifest], gpu: Gpu) -> Problem | None:
    """The first trouble of these pods; None where all of them are well or on their way."""
    troubles = (pod_problem(pod, gpu) for pod in pods if not is_ready(pod))
    return next((found for found in troubles if found), None)


def pod_problem(pod: Manifest, gpu: Gpu) -> Problem | None:
    """What keeps this pod from serving; None where nothing does, or nothing but time."""
    return _unschedulable(pod, gpu) or next(
        (found for status in _statuses(pod) if (found := _container_problem(status))), None
    )


def pods_problem(
    pods: Sequence[Manifest], gpu: Gpu, arches: Sequence[str] | None
) -> Problem | None:
    """The first trouble of these pods, where the cluster's compute capabilities are `arches`."""
    found = first_problem(pods, gpu)
    if found and found.reason == Reason.UNSCHEDULABLE:
        return no_matching_node(gpu, arches) or found
    return found


def is_looping(pod: Manifest) -> bool:
    """Whether one of its containers has been started anew and ended again, soon after."""
    return any(map(_loops, _statuses(pod)))


def missing_secret(pods: Iterable[Manifest]) -> Problem | None:
    """Which Secret a pod may be waiting for, as far as the pod itself shows it.

    The kubelet says that a Secret is missing in an event only. What the pod shows is that its
    volumes are not there yet: it has a node, and nothing to start containers in.
    """
    for pod in pods:
        secrets = _secrets(pod)
        if secrets and lacks_volumes(pod):
            return Problem(
                Reason.WAITING_FOR_SECRET,
                f"a balancer waits for its Secret {secrets[0]}: it must be in the server's "
                "namespace (balancer.apiKeys.secretName)",
            )
    return None


def missing_token(pods: Iterable[Manifest], secret: TokenSecret | None) -> Problem | None:
    """Which Secret, of those that models are downloaded with, one of these replicas may be waiting
    for: as with `awaited_secret`."""
    waiting = (pod for pod in pods if lacks_volumes(pod))
    if secret is None or not any(secret.name in _secrets(pod) for pod in waiting):
        return None
    return Problem(
        Reason.WAITING_FOR_SECRET,
        f"a replica waits for its Secret {secret.name}: it must be in the server's namespace, "
        f"with the entry {secret.key} (model.secretRef)",
    )


def lacked_volumes_since(pod: Manifest) -> datetime | None:
    """Since when; None where it does not lack them, or does not say."""
    if not lacks_volumes(pod):
        return None
    since = _condition(pod, "PodReadyToStartContainers").get("lastTransitionTime")
    return None if since is None else datetime.fromisoformat(since)


def lacks_volumes(pod: Manifest) -> bool:
    """Whether the pod has a node, and nothing there to start containers in."""
    return _condition(pod, "PodReadyToStartContainers").get("status") == "False"


def model_downloaded(pod: Manifest) -> bool:
    """Whether this pod has downloaded and checked its model."""
    terminated = _model_status(pod).get("state", {}).get("terminated", {})
    return bool(terminated.get("exitCode", 1) == 0)


def download_report(pod: Manifest) -> dict[str, Any] | None:
    """What the download found the model to be; None where it has not ended, or says nothing."""
    if not model_downloaded(pod):
        return None
    try:
        said = json.loads(_model_status(pod)["state"]["terminated"].get("message", ""))
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def is_downloading(pod: Manifest) -> bool:
    """Whether this pod is downloading its model now."""
    return "running" in _model_status(pod).get("state", {})


def model_problem(pod: Manifest) -> Problem | None:
    """Why this pod does not have its model; None where it has, or nothing is wrong yet."""
    return _container_problem(_model_status(pod))


def download_command(pod: Manifest) -> list[str] | None:
    """How a pod, or a pod template, gets its model."""
    for container in pod["spec"].get("initContainers", []):
        if container["name"] == names.DOWNLOAD_CONTAINER:
            command: list[str] = container.get("command", [])
            return command
    return None


def replica_failure(deployment: Manifest | None) -> Problem | None:
    """Why the cluster lets a Deployment have no more pods: a quota, a policy."""
    conditions = (deployment or {}).get("status", {}).get("conditions", [])
    for condition in conditions:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Problem(Reason.FAILED_CREATE, condition.get("message", ""))
    return None


def no_matching_node(gpu: Gpu, arches: Sequence[str] | None) -> Problem | None:
    """Why no node can have a replica, where the cluster's compute capabilities say so.

    None where one has the right GPUs, or where it is not known which ones there are.
    """
    if gpu.compute_arch is None or arches is None or gpu.compute_arch in arches:
        return None
    there_are = (
        f"the cluster has {', '.join(arches)}"
        if arches
        else "no node is labelled with one, as GPU feature discovery does"
    )
    message = f"no node has GPUs of compute capability {gpu.compute_arch}: {there_are}"
    return Problem(Reason.NO_MATCHING_NODE, message)


def is_unschedulable(pod: Manifest) -> bool:
    """Whether the scheduler finds no node for this pod."""
    return _condition(pod, "PodScheduled").get("reason") == "Unschedulable"


def _secrets(pod: Manifest) -> list[str]:
    """The Secrets that it has among its volumes."""
    volumes = pod["spec"].get("volumes") or ()
    return [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]


def _unschedulable(pod: Manifest, gpu: Gpu) -> Problem | None:
    if not is_unschedulable(pod):
        return None
    message = _condition(pod, "PodScheduled").get("message", "")
    if gpu.count and f"Insufficient {gpu.resource}" in message:
        message = f"waiting for {gpu.count} {gpu.resource}: {message}"
    return Problem(Reason.UNSCHEDULABLE, message)


def _loops(status: Manifest) -> bool:
    state = status.get("state", {})
    again = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    if status.get("ready") or not ended or not (again or status.get("restartCount", 0) > 1):
        return False
    # One that ran for long was well: it may be so again.
    times = [ended.get(name) for name in ("startedAt", "finishedAt")]
    if not all(times):
        return True
    began, over = map(datetime.fromisoformat, times)
    return over - began < LOOP


def _container_problem(status: Manifest) -> Problem | None:
    state = status.get("state", {})
    waiting = state.get("waiting", {})
    if waiting.get("reason") in _IMAGE_REASONS:
        said = waiting.get("message") or waiting["reason"]
        return Problem(Reason.IMAGE_PULL_BACK_OFF, f"cannot pull image {status['image']}: {said}")
    if waiting.get("reason") in {"CreateContainerConfigError", "CreateContainerError"}:
        return Problem(Reason.CREATE_CONTAINER_ERROR, waiting.get("message", ""))
    if status.get("ready"):
        return None
    # While it is tried again, what went wrong last still is what is known.
    terminated = state.get("terminated") or status.get("lastState", {}).get("terminated")
    if not terminated or terminated.get("exitCode") == 0:
        return None
    if status["name"] == names.DOWNLOAD_CONTAINER:
        return _model_failure(terminated)
    return Problem(Reason.CRASH_LOOP_BACK_OFF, f"{status['name']} {_ending(terminated)}")


def _model_failure(terminated: Manifest) -> Problem:
    try:
        report = json.loads(terminated.get("message", ""))
        reason = Reason(report["reason"])
        message = str(report["message"])
    except (ValueError, KeyError, TypeError):
        return Problem(Reason.MODEL_DOWNLOAD_FAILED, f"the model's download {_ending(terminated)}")
    if reason not in DOWNLOAD_REASONS:
        return Problem(Reason.MODEL_DOWNLOAD_FAILED, f"the model's download {_ending(terminated)}")
    return Problem(reason, message)


def _ending(terminated: Manifest) -> str:
    if terminated.get("reason") == "OOMKilled":
        return "was killed: it took more memory than its limit"
    lines = terminated.get("message", "").strip().splitlines()
    said = f": {lines[-1].strip()}" if lines else ""
    return f"exited with code {terminated.get('exitCode')}{said}"


def _model_status(pod: Manifest) -> dict[str, Any]:
    return next(
        (status for status in _statuses(pod) if status["name"] == names.DOWNLOAD_CONTAINER), {}
    )


def _statuses(pod: Manifest) -> Iterable[Manifest]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _condition(pod: Manifest, kind: str) -> Manifest:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})
