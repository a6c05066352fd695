"""What there is to say of a server's model: what its spec says, and what its pods found. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from slotkeeper.api.model import Model
from slotkeeper.api.server import LlamaServer
from slotkeeper.api.status import ModelStatus
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import download_command, download_report


def current_pods(observed: Observed) -> list[Manifest]:
    """The pods with the model that is wanted now, without those of an older spec."""
    if observed.replicas is None:
        return []
    wanted = download_command(observed.replicas["spec"]["template"])
    return [pod for pod in observed.replica_pods if download_command(pod) == wanted]


def model_status(server: LlamaServer, observed: Observed) -> ModelStatus:
    """The model, as the newest pod that has it tells of it.

    Where none does, what was last known of the same model stays: with no replica there is no pod.
    """
    model = server.spec.model
    source = _source(model.url)
    said = {"source": source, "file": unquote(source.rpartition("/")[2])}
    before = server.status.get("model", {})
    newest_first = sorted(current_pods(observed), key=_age, reverse=True)
    reports = [report for pod in newest_first if (report := _read(download_report(pod)))]
    if not reports and _is_of(model, before):
        reports = [known for known in [_read(before)] if known]
    return (reports[0] if reports else ModelStatus()).model_copy(update=said)


def _source(url: str) -> str:
    """The URL without what may be secret in it. That there is no userinfo, a rule says."""
    path = url.partition("#")[0].partition("?")[0]
    return path if "/" in path.partition("://")[2] else f"{path}/"


def _read(report: Mapping[str, Any] | None) -> ModelStatus | None:
    if not report or "bytes" not in report:
        return None
    try:
        return ModelStatus.model_validate(report)
    except ValidationError:
        # Of a tool that is newer or older than this operator.
        return None


def _is_of(model: Model, status: Mapping[str, Any]) -> bool:
    same = status.get("source") == _source(model.url)
    return same and (model.sha256 or "").lower() in {"", status.get("sha256")}


def _age(pod: Manifest) -> str:
    """Timestamps of Kubernetes sort as text."""
    return str(pod["metadata"].get("creationTimestamp", ""))
