"""What a pod's status shows: readiness, address, the download of its model. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from slotkeeper.bounded_json import parse
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest

_MAX_MESSAGE = 32 * 1024
"""Characters of a termination message: more than Kubernetes stores."""


def is_ready(pod: Manifest) -> bool:
    """Whether the pod is ready to serve."""
    return condition(pod, "Ready").get("status") == "True"


def is_unschedulable(pod: Manifest) -> bool:
    """Whether the scheduler finds no node for this pod."""
    return condition(pod, "PodScheduled").get("reason") == "Unschedulable"


def created(pod: Manifest) -> str:
    """When the pod was created. Kubernetes' timestamps sort as text."""
    return str(pod["metadata"].get("creationTimestamp", ""))


def address(pod: Manifest, port: int) -> str:
    """HOST:PORT of a pod that has an address."""
    host = pod["status"]["podIP"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def required_secrets(pod: Manifest) -> dict[str, str]:
    """The Secrets without which the pod does not start, by the volumes that mount them."""
    return {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod["spec"].get("volumes") or ()
        if "secret" in volume and not volume["secret"].get("optional")
    }


def required_entries(pod: Manifest) -> dict[str, list[str]]:
    """The entries of each of these Secrets without which its volumes are not mounted."""
    found: dict[str, list[str]] = {}
    for volume in pod["spec"].get("volumes") or ():
        if "secret" in volume and not volume["secret"].get("optional"):
            entries = found.setdefault(volume["secret"]["secretName"], [])
            entries += [each["key"] for each in volume["secret"].get("items") or ()]
    return found


def lacks_volumes(pod: Manifest) -> bool:
    """Whether the pod has a node, and its volumes are not mounted there yet."""
    return condition(pod, "PodReadyToStartContainers").get("status") == "False"


def lacks_volumes_since(pod: Manifest) -> datetime | None:
    """Since when; None where it does not lack them, or its status does not show it."""
    if not lacks_volumes(pod):
        return None
    since = condition(pod, "PodReadyToStartContainers").get("lastTransitionTime")
    return None if since is None else datetime.fromisoformat(since)


def model_downloaded(pod: Manifest) -> bool:
    """Whether this pod has its model: downloaded and verified, or in the image that it runs."""
    if download_command(pod) is None:
        return any("running" in each.get("state", {}) for each in container_statuses(pod))
    terminated = download_status(pod).get("state", {}).get("terminated", {})
    return bool(terminated.get("exitCode", 1) == 0)


def is_downloading(pod: Manifest) -> bool:
    """Whether this pod is downloading its model now."""
    return "running" in download_status(pod).get("state", {})


def download_report(pod: Manifest) -> dict[str, Any] | None:
    """The model as the download reported it; None before its end, or without a report."""
    if download_command(pod) is None or not model_downloaded(pod):
        return None
    return parse_termination_message(download_status(pod)["state"]["terminated"])


def parse_termination_message(terminated: Manifest) -> dict[str, Any] | None:
    """The JSON object in a container's termination message; None where it is anything else."""
    try:
        report = parse(terminated.get("message", ""), max_bytes=_MAX_MESSAGE)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def download_command(pod: Manifest) -> list[str] | None:
    """The command by which a pod, or a pod template, downloads its model: in an init container, or
    in the container of a Job."""
    spec = pod["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        if container["name"] == names.DOWNLOAD_CONTAINER:
            command: list[str] = container.get("command", [])
            return command
    return None


def model_source(pod: Manifest) -> list[str] | None:
    """What determines the model of a pod, or of a pod template: the command of its download, or
    else the arguments of llama-server."""
    command = download_command(pod)
    if command is not None:
        return command
    return next(
        (
            container.get("args")
            for container in pod["spec"]["containers"]
            if container["name"] == names.LLAMA_SERVER_CONTAINER
        ),
        None,
    )


def download_status(pod: Manifest) -> dict[str, Any]:
    """The status of the container that downloads; empty before there is one."""
    statuses = container_statuses(pod)
    return next((each for each in statuses if each["name"] == names.DOWNLOAD_CONTAINER), {})


def container_statuses(pod: Manifest) -> Iterable[Manifest]:
    """The statuses of all containers, in the order in which they start."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def condition(item: Manifest, kind: str) -> Manifest:
    """The condition of this type in an object's status; empty where there is none."""
    conditions = item.get("status", {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})
