"""A thousand servers do not read their headers at once."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from inspection_jobs import RECORD, end_of, inspections
from operator_harness import START, Operator, apply_server, condition
from slotkeeper.api.conditions import rfc3339
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.inspections import MAX_AT_ONCE

MORE = 7
GPU = {"memory": "15Gi"}


def names(cluster: FakeCluster) -> set[str]:
    """The servers with a Job."""
    return {job["metadata"]["ownerReferences"][0]["name"] for job in inspections(cluster)}


@pytest.fixture
async def many(cluster: FakeCluster, operator: Operator) -> set[str]:
    """More servers than may read headers at once."""
    servers = {f"server-{number}" for number in range(MAX_AT_ONCE + MORE)}
    for name in sorted(servers):
        apply_server(cluster, name, gpu=GPU)
        await operator.reconcile(Key("default", name))
    return servers


async def test_only_some_read_headers_at_the_same_time(
    cluster: FakeCluster, many: set[str]
) -> None:
    first = names(cluster)

    assert len(first) == MAX_AT_ONCE
    [waiting] = {condition(cluster, "FitsMemory", name)["message"] for name in many - first}
    assert waiting == (
        "waiting for the headers of the model's files: as many Jobs as may run at the same time "
        "read those of other servers"
    )


async def test_each_that_ends_is_followed_by_another_one(
    cluster: FakeCluster, operator: Operator, many: set[str]
) -> None:
    read: set[str] = set()
    for _ in range(MAX_AT_ONCE + MORE):
        job = min(inspections(cluster), key=lambda each: str(each["metadata"]["name"]))
        read.add(job["metadata"]["ownerReferences"][0]["name"])
        end_of(cluster, job, {"record": RECORD})
        await operator.run_for(2)
        assert len(inspections(cluster)) == min(MAX_AT_ONCE, len(many - read))

    assert read == many
    assert {condition(cluster, "FitsMemory", name)["status"] for name in many} == {"True"}


async def test_jobs_that_cannot_run_do_not_keep_others_waiting(
    cluster: FakeCluster, operator: Operator, many: set[str]
) -> None:
    stuck = names(cluster)
    for job in inspections(cluster):
        cluster.put(job | {"metadata": job["metadata"] | {"creationTimestamp": rfc3339(START)}})
    await operator.run_for(115)
    before = names(cluster)
    await operator.run_for(10)

    assert before == stuck
    assert names(cluster) == many


@pytest.mark.usefixtures("many")
async def test_replicas_that_wait_for_a_choice_come_first(
    cluster: FakeCluster, operator: Operator
) -> None:
    spec: dict[str, Any] = {"contextPerSlot": "auto", "gpu": GPU}
    apply_server(cluster, "urgent", **spec)
    await operator.reconcile(Key("default", "urgent"))

    assert "urgent" in names(cluster)
