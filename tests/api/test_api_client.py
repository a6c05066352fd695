"""The API client on a real API server: preconditions, pages and watches."""

import pytest

from apiserver import ApiServer
from llamaservers import raw_server
from operator_harness import KEY
from real_api_harness import create_server
from slotkeeper.kube.client import PAGE_SIZE, ApiCluster
from slotkeeper.kube.cluster import Conflict, Manifest, NotFound
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS

LEASE: Manifest = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "precondition", "namespace": "default"},
    "spec": {"holderIdentity": "a"},
}


async def test_an_apply_with_a_resource_version_fails_if_the_object_has_changed(
    cluster: ApiCluster,
) -> None:
    first = await cluster.create(LEASE)
    with pytest.raises(Conflict):
        await cluster.create(LEASE)
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    lease = {**LEASE, "metadata": LEASE["metadata"] | version, "spec": {"holderIdentity": "b"}}
    await cluster.apply(lease)

    with pytest.raises(Conflict):
        await cluster.apply({**lease, "spec": {"holderIdentity": "c"}})

    await cluster.delete(LEASES, "default", "precondition")
    await cluster.delete(LEASES, "default", "precondition")


async def test_an_apply_with_resource_version_1_creates_but_never_updates(
    cluster: ApiCluster,
) -> None:
    lease = {**LEASE, "metadata": LEASE["metadata"] | {"resourceVersion": "1"}}

    created = await cluster.apply(lease)
    with pytest.raises(Conflict):
        await cluster.apply({**lease, "spec": {"holderIdentity": "b"}})

    managers = {entry["operation"] for entry in created["metadata"]["managedFields"]}
    assert managers == {"Apply"}
    await cluster.delete(LEASES, "default", "precondition")


async def test_an_apply_with_a_uid_updates_only_that_object_and_never_creates(
    cluster: ApiCluster,
) -> None:
    other = {"uid": "00000000-0000-4000-8000-000000000000"}
    with pytest.raises(Conflict):
        await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | other})
    created = await cluster.create(LEASE)

    with pytest.raises(Conflict):
        await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | other})
    same = {"uid": created["metadata"]["uid"]}
    await cluster.apply({**LEASE, "metadata": LEASE["metadata"] | same})

    await cluster.delete(LEASES, "default", "precondition")


async def test_a_status_patch_fails_for_another_server_of_the_same_name(
    api: ApiServer, cluster: ApiCluster
) -> None:
    before = create_server(api, gpu={"count": 0})
    await cluster.delete(LLAMA_SERVERS, *KEY)
    create_server(api, gpu={"count": 0})

    with pytest.raises(Conflict):
        await cluster.patch_status(before | {"status": {"queued": 1}})


async def test_pages_contain_all_objects_at_one_resource_version(cluster: ApiCluster) -> None:
    for index in range(PAGE_SIZE + 1):
        metadata = {"name": f"page-{index}", "namespace": "default", "labels": {"paged": "yes"}}
        await cluster.create({**LEASE, "metadata": metadata})

    pages = [page async for page in cluster.pages(LEASES, None, {"paged": ""})]

    assert [len(page.items) for page in pages] == [PAGE_SIZE, 1]
    assert len({page.resource_version for page in pages}) == 1
    for page in pages:
        for item in page.items:
            await cluster.delete(LEASES, "default", item["metadata"]["name"])


async def test_a_delete_with_another_uid_fails(api: ApiServer, cluster: ApiCluster) -> None:
    create_server(api, gpu={"count": 0})

    with pytest.raises(Conflict):
        await cluster.delete(LLAMA_SERVERS, *KEY, uid="another")


async def test_a_status_patch_never_creates_a_server(cluster: ApiCluster) -> None:
    deleted = raw_server(KEY.name) | {"status": {"queued": 1}}
    deleted["metadata"]["namespace"] = KEY.namespace

    with pytest.raises(NotFound):
        await cluster.patch_status(deleted)


async def test_a_watch_sends_the_events_since_the_list(api: ApiServer, cluster: ApiCluster) -> None:
    listing = await cluster.list(LLAMA_SERVERS, KEY.namespace)
    created = create_server(api, gpu={"count": 0})

    watch = cluster.watch(LLAMA_SERVERS, KEY.namespace, None, listing.resource_version)
    async for event in watch:
        if event.type == "ADDED":
            assert event.object["metadata"]["uid"] == created["metadata"]["uid"]
            break
