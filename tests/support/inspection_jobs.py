"""Servers whose memory is planned, and what the Job that reads headers reports."""

import json
from typing import Any

from fake_cluster import FakeCluster
from operator_harness import START, pod_of
from pod_statuses import DOWNLOAD_IMAGE, terminated
from prefetch_jobs import SUCCEEDED
from slotkeeper.api.conditions import rfc3339
from slotkeeper.desired import names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import JOBS
from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.record import encode

GIB = 1024**3
LAYER = Layer(GIB // 4, heads=32, key=1024, value=1024, flash_attention=8000, feed_forward=40_000)
PARTS = Parts(Dimensions("llama", (LAYER,) * 32, 4096, 128_000, 131_072, GIB // 4, True, 0, 16_384))
"""A model of 8 GiB with a cache of 1 GiB for 8192 tokens."""
RECORD = encode(PARTS)

EIGHT: dict[str, Any] = {"slots": 8, "contextPerSlot": 8192}
"""Needs 16.9 GiB."""


def inspections(cluster: FakeCluster) -> list[Manifest]:
    """The Jobs that read headers."""
    return [
        job
        for job in cluster.by_name(JOBS).values()
        if job["metadata"]["labels"][names.COMPONENT_LABEL] == "inspection"
    ]


def inspection(cluster: FakeCluster) -> Manifest:
    [found] = inspections(cluster)
    return found


def end(
    cluster: FakeCluster, message: Any, *, code: int = 0, condition: Manifest = SUCCEEDED
) -> None:
    """End the only Job: its pod has this termination message, text or JSON."""
    end_of(cluster, inspection(cluster), message, code=code, condition=condition)


def end_of(
    cluster: FakeCluster,
    job: Manifest,
    message: Any,
    *,
    code: int = 0,
    condition: Manifest = SUCCEEDED,
) -> None:
    """End this Job in the same way."""
    text = message if isinstance(message, str) else json.dumps(message)
    pod = pod_of(job, 0, ready=False)
    container = {
        "name": "download",
        "image": DOWNLOAD_IMAGE,
        "ready": False,
        "state": terminated(text, code=code),
    }
    cluster.put(pod | {"status": {"containerStatuses": [container]}})
    _complete(cluster, job, condition)


def complete(cluster: FakeCluster) -> None:
    """End the only Job, at the start of the test; its pod is as it was."""
    _complete(cluster, inspection(cluster), SUCCEEDED)


def _complete(cluster: FakeCluster, job: Manifest, condition: Manifest) -> None:
    ended = {"completionTime": rfc3339(START)} if condition == SUCCEEDED else {}
    cluster.put(job | {"status": {"conditions": [condition], **ended}})
