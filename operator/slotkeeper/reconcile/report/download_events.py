"""The events of downloads: one at the start and one at the end, however many replicas. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from slotkeeper.api.conditions import ConditionType, ConditionValue, condition
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.downloads.report import MAX_SIZE
from slotkeeper.reconcile.downloads.text import duration, size
from slotkeeper.reconcile.observe.model import current_pods
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import download_status, parse_termination_message
from slotkeeper.reconcile.report.events import EventContent


def download_events(
    before: Mapping[str, Any],
    model: Mapping[str, Any],
    observed: Observed,
    values: Sequence[ConditionValue],
) -> Iterator[EventContent]:
    """The events of a server whose status was `before`; `model` is status.model now.

    A file that is there already is not downloaded, and causes none.
    """
    name = model.get("file") or model["source"]
    is_ready = next(value for value in values if value.type == ConditionType.MODEL_READY)
    was_ready = condition(before, ConditionType.MODEL_READY).get("status") == "True"
    downloading = "downloadedBytes" in model
    if downloading and "downloadedBytes" not in (before.get("model") or {}):
        # The same text for all replicas: it is one event an hour.
        host = model["source"].partition("://")[2].partition("/")[0]
        yield EventContent("Normal", "DownloadStarted", f"downloading {name} from {host}")
    if is_ready.reason in {Reason.DOWNLOADED, Reason.PREFETCHED} and not was_ready:
        pods = [*current_pods(observed), *observed.prefetch_pods]
        completed = sorted(filter(None, map(_completed, pods)))
        for _, seconds, received in completed[:1]:
            speed = f" ({size(received / seconds)}/s)" if seconds else ""
            text = f"{name}: {size(received)} in {duration(seconds)}{speed}"
            yield EventContent("Normal", "DownloadCompleted", text, always=True)


def _completed(pod: Manifest) -> tuple[datetime, int, int] | None:
    """When the pod's download ended, its seconds and its bytes; None if it received none."""
    terminated = download_status(pod).get("state", {}).get("terminated") or {}
    report = parse_termination_message(terminated) or {}
    received = report.get("receivedBytes")
    started, finished = terminated.get("startedAt"), terminated.get("finishedAt")
    if terminated.get("exitCode") != 0 or not started or not finished:
        return None
    if type(received) is not int or not 0 < received <= MAX_SIZE:
        return None
    end = datetime.fromisoformat(finished)
    return end, max(0, round((end - datetime.fromisoformat(started)).total_seconds())), received
