"""The model of a server, from its spec and from what its pods found in the file. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from slotkeeper.api.model import Model
from slotkeeper.api.model_url import hub_address, oci_reference
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import ModelStatus
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.downloads.text import column
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pod_problems import first_problem
from slotkeeper.reconcile.observe.pods import (
    created,
    download_report,
    is_ready,
    model_downloaded,
    model_source,
)

LOADING = "Loading"
"""In the column MODEL, while llama-server reads the file."""


def current_pods(observed: Observed) -> list[Manifest]:
    """The replicas' pods with the current model, without those of an older spec."""
    if observed.replicas is None or (observed.awaits_choice and observed.has_other_files):
        return []
    desired = model_source(observed.replicas["spec"]["template"])
    return [pod for pod in observed.replica_pods if model_source(pod) == desired]


def model_status(server: LlamaServer, observed: Observed) -> ModelStatus:
    """The model as the newest pod that downloaded it reported it.

    Without such a pod, the last report of the same model is kept: with no replica there is no pod.
    """
    model = server.spec.model
    source = _source(model.url)
    progress = observed.progress
    shown = progress if progress and progress.has_bytes else None
    # Nothing of these is in a download's report, or kept from the last status.
    now = {
        "source": source,
        "total_bytes": shown and shown.total_bytes,
        "downloaded_bytes": shown and shown.downloaded_bytes,
        "bytes_per_second": shown and shown.bytes_per_second,
        "seconds_left": shown and shown.seconds_left,
    }
    before = server.status.get("model", {})
    pods = [*current_pods(observed), *observed.prefetch_pods]
    newest_first = sorted(pods, key=created, reverse=True)
    reports = [report for pod in newest_first if (report := _parse(download_report(pod)))]
    if not reports and _is_of(model, before):
        reports = [kept for kept in [_parse(before)] if kept]
    found = reports[0] if reports else ModelStatus()
    file = _file(source) or _printable(found.file)
    shown_file = {"file": file, "display": _display(server, observed) or file or _artifact(source)}
    return found.model_copy(update=now | shown_file)


def _display(server: LlamaServer, observed: Observed) -> str:
    """What keeps the model from being served; empty if it is served, or nothing is starting."""
    pods = current_pods(observed)
    if any(map(is_ready, pods)):
        return ""
    if any(_is_loading(pod, server) for pod in pods):
        return LOADING
    return column(observed.progress) if observed.progress else ""


def _is_loading(pod: Manifest, server: LlamaServer) -> bool:
    """Whether the pod has its model, and nothing but time keeps it from being ready."""
    return model_downloaded(pod) and first_problem([pod], server.spec.gpu) is None


def _source(url: str) -> str:
    """The URL without query and fragment, which may be secret. A rule excludes userinfo."""
    path = url.partition("#")[0].partition("?")[0]
    return path if "/" in path.partition("://")[2] else f"{path}/"


def _file(source: str) -> str:
    """The file's name, as far as the URL has it."""
    on_hub = hub_address(source)
    if on_hub:
        return (on_hub.path or "").rpartition("/")[2]
    in_registry = oci_reference(source)
    if in_registry:
        return (in_registry.path or "").rpartition("/")[2]
    name = source.rpartition("/")[2]
    return _printable(unquote(name)) or name


def _artifact(source: str) -> str:
    """NAME:TAG of an artifact, for the column MODEL: Docker's have no names of files."""
    in_registry = oci_reference(source)
    return in_registry.url.rpartition("/")[2].partition("@")[0] if in_registry else ""


def _printable(name: str) -> str:
    """The name unless a terminal, on which the column MODEL is shown, would obey it."""
    return name if name.isprintable() else ""


def _parse(report: Mapping[str, Any] | None) -> ModelStatus | None:
    if not report or "sizeBytes" not in report:
        return None
    try:
        return ModelStatus.model_validate(report)
    except ValidationError:
        # The downloader is of a newer or older release than the operator.
        return None


def _is_of(model: Model, status: Mapping[str, Any]) -> bool:
    same = status.get("source") == _source(model.url)
    first = model.parts_sha256[0] if model.parts_sha256 else model.sha256
    return same and (first or "").lower() in {"", status.get("sha256")}
