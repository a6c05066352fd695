"""Which replicas show whether they use their accelerators, and what ended replicas say. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.llamacpp.argv import ALL_LAYERS
from slotkeeper.llamacpp.diagnosis.diagnose import Diagnosis, diagnose_end
from slotkeeper.reconcile.accelerators.tracker import StartedContainer
from slotkeeper.reconcile.observe.observed import Observed, updated_pods
from slotkeeper.reconcile.observe.pods import container_statuses

_LAYERS = "--n-gpu-layers"
_PROGRAMS = {names.LLAMA_SERVER_CONTAINER, names.WORKER_CONTAINER}


def has_accelerators(server: LlamaServer) -> bool:
    """Whether the pods of a server's replicas request accelerators."""
    return server.spec.gpu.count > 0


def started_containers(server: LlamaServer, observed: Observed) -> list[StartedContainer]:
    """The llama-servers that have loaded their model: the start of their log is complete."""
    if not has_accelerators(server):
        return []
    return [
        StartedContainer(pod["metadata"]["name"], status["name"], status["containerID"], layers)
        for pod in replicas_pods(observed)
        if (layers := _layers(pod)) is not None
        for status in container_statuses(pod)
        if status["name"] == names.LLAMA_SERVER_CONTAINER
        and status.get("ready")
        and status.get("containerID")
    ]


def replicas_pods(observed: Observed) -> list[Manifest]:
    """The pods of replicas and workers of the current templates, or of older ones without any."""
    return updated_pods(observed) or [*observed.worker_pods, *observed.replica_pods]


def ended_by_accelerator(pods: Iterable[Manifest]) -> tuple[str, Diagnosis] | None:
    """The first pod of which a container ended, or cannot be created, because of an accelerator,
    and the diagnosis."""
    for pod in pods:
        for text in _texts(pod):
            found = diagnose_end(text)
            if found and found.is_of_accelerator:
                return pod["metadata"]["name"], found
    return None


def _texts(pod: Manifest) -> Iterator[str]:
    for status in container_statuses(pod):
        if status["name"] not in _PROGRAMS or status.get("ready"):
            continue
        state = status.get("state", {})
        yield state.get("waiting", {}).get("message") or ""
        # During a retry the last failure is still the best explanation.
        ended = state.get("terminated") or status.get("lastState", {}).get("terminated") or {}
        if ended.get("exitCode"):
            yield ended.get("message") or ""


def _layers(pod: Manifest) -> int | None:
    """The value of --n-gpu-layers; None for a pod without a llama-server."""
    for container in pod["spec"]["containers"]:
        if container["name"] == names.LLAMA_SERVER_CONTAINER:
            return _value(container.get("args") or ())
    return None


def _value(args: Sequence[str]) -> int:
    for flag, value in pairwise(args):
        if flag == _LAYERS and value.isdecimal():
            return int(value)
    return ALL_LAYERS
