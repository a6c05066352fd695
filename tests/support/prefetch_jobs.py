"""Servers at zero with a prefetch Job, and what Kubernetes does with the Job and its pods."""

import json
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from operator_harness import BALANCER_HOST, START, Operator, demand_report, deploy, pod_of
from pod_statuses import DOWNLOAD_IMAGE, download_error, terminated
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import JOBS

URL = "https://models.example.com/model.gguf"
MODEL: dict[str, Any] = {"url": URL, "cache": {"claimName": "models"}}
TO_ZERO = {"minReplicas": 0, "maxReplicas": 3, "idleSeconds": 30}

SUCCEEDED = {"type": "Complete", "status": "True"}
NOT_FOUND = download_error("ModelNotFound", f"GET {URL} answered 404")
UNREACHABLE = download_error("ModelUnreachable", "connection refused")
REPORT = {"sizeBytes": 7, "architecture": "llama", "contextLength": 2048}
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
NO_MEMORY = "0/1 nodes are available: 1 Insufficient memory."


async def deploy_at_zero(cluster: FakeCluster, operator: Operator, **model: Any) -> None:
    """Deploy a server without replicas, whose balancer reports no requests."""
    await deploy(cluster, operator, model=MODEL | model, autoscaling=TO_ZERO)
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0)
    await operator.run_for(2)


async def queue_request(operator: Operator) -> None:
    operator.balancers.reports[BALANCER_HOST] = demand_report(total=0, queued=1)
    await operator.run_for(1)


def jobs(cluster: FakeCluster) -> dict[str, Manifest]:
    return cluster.by_name(JOBS)


def job(cluster: FakeCluster) -> Manifest:
    [found] = jobs(cluster).values()
    return found


def put_pod(cluster: FakeCluster, state: Manifest, number: int = 0, **status: Any) -> None:
    """Put the pod of a try of the Job, whose container has this state."""
    pod = pod_of(job(cluster), number, ready=False)
    at = rfc3339(START + timedelta(minutes=number))
    pod["metadata"] |= {"creationTimestamp": at}
    container = {"name": "download", "image": DOWNLOAD_IMAGE, "ready": False, "state": state}
    cluster.put(pod | {"status": {"containerStatuses": [container], **status}})


def put_status(cluster: FakeCluster, *conditions: Manifest, **status: Any) -> None:
    cluster.put(job(cluster) | {"status": {"conditions": [*conditions], **status}})


def failed(reason: str, since: str = rfc3339(START)) -> Manifest:
    return {
        "type": "Failed",
        "status": "True",
        "reason": reason,
        "message": "Job has failed",
        "lastTransitionTime": since,
    }


async def succeed(cluster: FakeCluster, operator: Operator) -> None:
    put_pod(cluster, terminated(json.dumps(REPORT), code=0))
    put_status(cluster, SUCCEEDED, succeeded=1)
    await operator.reconcile()


async def fail(
    cluster: FakeCluster, operator: Operator, state: Manifest, reason: str = "PodFailurePolicy"
) -> None:
    put_pod(cluster, state)
    put_status(cluster, failed(reason), failed=1)
    await operator.reconcile()


def phases(registry: CollectorRegistry) -> dict[str, float]:
    return {
        phase: registry.get_sample_value("slotkeeper_operator_prefetch_jobs", {"phase": phase}) or 0
        for phase in ("Running", "Succeeded", "Failed")
    }
