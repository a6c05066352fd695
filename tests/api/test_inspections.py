"""The report of the Job that reads headers, and a quota of Jobs, on a real API server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from apiserver import ApiServer
from inspection_jobs import LAYER, PARTS, RECORD
from operator_harness import KEY, Operator
from real_api_harness import create_server
from slotkeeper.desired import names
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import DEPLOYMENTS, JOBS, LLAMA_SERVERS
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.record import encode

CORE = f"/api/v1/namespaces/{KEY.namespace}"
POD = "inspection"
QUOTA = "no-jobs"
MERGE = {"Content-Type": "application/merge-patch+json"}

HUGE = replace(LAYER, weights=0, key=2**50, value=2**50, state=2**50)
HUGE_RECORD = encode(Parts(replace(PARTS.model, layers=(HUGE,) * 512)))


@pytest.fixture
def reported(api: ApiServer) -> Iterator[None]:
    """The pod of the Job, which no controller deletes here, is deleted after the test."""
    yield
    api.client.delete(f"{CORE}/pods/{POD}?gracePeriodSeconds=0")


@pytest.fixture
def no_jobs(api: ApiServer) -> Iterator[None]:
    """A quota of no Jobs."""
    hard = {"count/jobs.batch": "0"}
    manifest = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": QUOTA}}
    created = api.post(f"{CORE}/resourcequotas", {**manifest, "spec": {"hard": hard}})
    assert created.status_code == 201, created.text
    # As its controller, which does not run here, does.
    _patch(api, f"resourcequotas/{QUOTA}", {"hard": hard, "used": hard})
    yield
    api.client.delete(f"{CORE}/resourcequotas/{QUOTA}")


@pytest.mark.usefixtures("reported")
async def test_a_choice_is_kept_in_the_status(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, contextPerSlot="auto", gpu={"memory": "15Gi"})
    operator = Operator(cluster)
    await operator.reconcile()
    before = await _deployments(cluster)
    await _report(api, cluster, RECORD)

    await operator.reconcile()
    await operator.reconcile()

    assert before == {"chat-balancer"}
    assert await _deployments(cluster) == {"chat-balancer", "chat-replicas"}
    memory = (await _status(cluster))["memory"]
    assert memory["record"] == RECORD
    assert memory["contextPerSlot"] > 4096
    assert await _jobs(cluster) == []


@pytest.mark.usefixtures("reported")
async def test_the_largest_plan_is_accepted(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, contextPerSlot=16_777_216, gpu={"memory": "15Gi"})
    operator = Operator(cluster)
    await operator.reconcile()
    await _report(api, cluster, HUGE_RECORD)

    await operator.reconcile()

    status = await _status(cluster)
    assert status["memory"]["neededBytes"] == 2**63 - 1
    assert _condition(status, "FitsMemory")["reason"] == "DoesNotFit"


@pytest.mark.usefixtures("no_jobs")
async def test_a_quota_of_jobs_leaves_replicas_alone(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, gpu={"memory": "15Gi"})
    operator = Operator(cluster)
    await operator.reconcile()

    assert await _deployments(cluster) == {"chat-balancer", "chat-replicas"}
    status = await _status(cluster)
    assert _condition(status, "Degraded")["status"] == "False"
    fits = _condition(status, "FitsMemory")
    assert fits["reason"] == "HeaderUnavailable"
    assert f"exceeded quota: {QUOTA}" in fits["message"]


async def _report(api: ApiServer, cluster: ApiCluster, record: str) -> None:
    """End the Job, as its controller and a kubelet do: its pod has a termination message."""
    [job] = await _jobs(cluster)
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
    }
    template = job["spec"]["template"]
    metadata = {**template["metadata"], "name": POD, "ownerReferences": [owner]}
    metadata.pop("creationTimestamp", None)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    created = api.post(f"{CORE}/pods", pod)
    assert created.status_code == 201, created.text
    ended = {"exitCode": 0, "message": json.dumps({"record": record})}
    container = {
        "name": names.DOWNLOAD_CONTAINER,
        "image": "download",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": ended},
    }
    _patch(api, f"pods/{POD}", {"phase": "Succeeded", "containerStatuses": [container]})


def _patch(api: ApiServer, path: str, status: Manifest) -> None:
    patched = api.client.patch(
        f"{CORE}/{path}/status", headers=MERGE, content=json.dumps({"status": status})
    )
    assert patched.status_code == 200, patched.text


async def _jobs(cluster: ApiCluster) -> list[Manifest]:
    labels = {names.SERVER_LABEL: KEY.name}
    return (await cluster.list(JOBS, KEY.namespace, labels)).items


async def _deployments(cluster: ApiCluster) -> set[str]:
    labels = {names.SERVER_LABEL: KEY.name}
    found = (await cluster.list(DEPLOYMENTS, KEY.namespace, labels)).items
    return {item["metadata"]["name"] for item in found}


async def _status(cluster: ApiCluster) -> Any:
    found = await cluster.get(LLAMA_SERVERS, *KEY)
    assert found
    return found["status"]


def _condition(status: Any, kind: str) -> Any:
    return next(each for each in status["conditions"] if each["type"] == kind)
