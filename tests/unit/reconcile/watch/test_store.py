"""The store: objects as watches, listings and the operator's own writes showed them last."""

import copy
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fake_cluster import FakeCluster
from llamaservers import raw_server
from operator_harness import Operator, apply_server, deploy, pod_of
from slotkeeper.kube.cluster import Gone, Listing, Manifest, WatchEvent
from slotkeeper.kube.kinds import JOBS, LEASES, LLAMA_SERVERS, SERVICES
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch.informers import list_into
from slotkeeper.reconcile.watch.store import Store, uids_of

A, B = Key("default", "a"), Key("default", "b")


def service(version: int, *, uid: str = "u", server: str = "a", **spec: Any) -> Manifest:
    """A Service at this version, with the label of a server unless that is empty."""
    metadata: Manifest = {"name": "s", "namespace": "default", "uid": uid}
    if server:
        metadata["labels"] = {"slotkeeper.dev/server": server}
    metadata["resourceVersion"] = str(version)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def apply_event(store: Store, kind: str, manifest: Manifest) -> set[Key]:
    """Apply a watch event of this type; return the servers that changed."""
    return store.apply_event(WatchEvent(kind, copy.deepcopy(manifest)))


def versions(store: Store, key: Key = A) -> list[str]:
    """The versions of a server's stored children."""
    return [item["metadata"]["resourceVersion"] for item in store.children(key).values()]


def test_an_added_object_is_stored_unchanged() -> None:
    store = Store()

    changed = apply_event(store, "ADDED", service(5, port=80))

    assert changed == {A}
    assert store.children(A) == {(SERVICES, "s"): service(5, port=80)}


def test_a_server_its_children_and_its_pods_are_read_separately() -> None:
    cluster, store = FakeCluster(), Store()
    raw = apply_server(cluster, "a")
    pod = pod_of({"metadata": {"name": "a-x", "namespace": "default"}, "spec": TEMPLATE})
    pod["metadata"] |= {"uid": "p", "resourceVersion": "9"}

    changed = [store.put(item) for item in (raw, service(5), pod)]

    assert changed == [{A}, {A}, {A}]
    assert store.resource(A) == raw
    assert store.keys == [A]
    assert list(store.children(A)) == [(SERVICES, "s")]
    assert store.pods(A) == [pod]


TEMPLATE = {
    "template": {
        "metadata": {"labels": {"slotkeeper.dev/server": "a"}},
        "spec": {"containers": []},
    }
}

LATE = [
    pytest.param([("ADDED", service(5)), ("MODIFIED", service(4))], ["5"], id="an older version"),
    pytest.param(
        [("ADDED", service(5)), ("DELETED", service(6)), ("MODIFIED", service(4))],
        [],
        id="a version of a deleted object",
    ),
    pytest.param(
        [("ADDED", service(7, uid="new")), ("DELETED", service(6))],
        ["7"],
        id="the deletion of its predecessor",
    ),
    pytest.param(
        [("ADDED", service(5)), ("DELETED", service(6)), ("ADDED", service(7))],
        ["7"],
        id="not late: its label was restored",
    ),
]


@pytest.mark.parametrize(("events", "expected"), LATE)
def test_a_late_event_changes_nothing(events: list[tuple[str, Manifest]], expected: Any) -> None:
    store = Store()

    for kind, manifest in events:
        apply_event(store, kind, manifest)

    assert versions(store) == expected


def test_the_event_of_an_own_write_is_no_change() -> None:
    store = Store()
    store.put(service(5))

    changed = apply_event(store, "ADDED", service(5))

    assert changed == set()


def test_late_events_of_an_object_that_the_operator_deleted_are_ignored() -> None:
    store = Store()
    store.put(service(5))
    store.confirm_deleted(service(5))

    late = apply_event(store, "MODIFIED", service(6, port=80))
    deleted = apply_event(store, "DELETED", service(7))
    apply_event(store, "ADDED", service(8, uid="new"))

    assert (late, deleted) == (set(), set())
    assert versions(store) == ["8"]


def owned_by_a(manifest: Manifest, **fields: Any) -> Manifest:
    owners = [{"controller": True, "uid": "1"}]
    return manifest | {"metadata": {**manifest["metadata"], "ownerReferences": owners}} | fields


def test_a_deletion_by_the_operator_may_be_shown_before_its_response() -> None:
    store = Store()
    store.put(owned_by_a(service(5)))

    apply_event(store, "DELETED", owned_by_a(service(6)))
    before_the_response = store.deleted_by_others(A, "1")
    store.confirm_deleted(owned_by_a(service(5)))

    assert before_the_response == [(SERVICES, "s")]
    assert store.deleted_by_others(A, "1") == []


@pytest.mark.parametrize(("kind", "ended"), [("Complete", True), ("Failed", True), ("Any", False)])
def test_a_job_that_has_ended_may_be_deleted(kind: str, *, ended: bool) -> None:
    store = Store()
    status = {"conditions": [{"type": kind, "status": "True"}]}
    job = owned_by_a(service(5), apiVersion="batch/v1", kind="Job", status=status)
    store.put(job)

    apply_event(store, "DELETED", job | {"metadata": job["metadata"] | {"resourceVersion": "6"}})

    assert store.deleted_by_others(A, "1") == ([] if ended else [(JOBS, "s")])


def test_a_confirmed_deletion_applies_to_its_own_uid_only() -> None:
    store = Store()
    store.put(service(5, uid="new"))

    store.confirm_deleted(service(4, uid="old"))

    assert versions(store) == ["5"]


def test_a_child_whose_label_changes_is_a_change_for_both_servers() -> None:
    store = Store()
    store.put(service(5))

    changed = store.put(service(6, server="b"))

    assert changed == {A, B}
    assert (versions(store, A), versions(store, B)) == ([], ["6"])


def test_an_object_that_loses_its_label_is_dropped() -> None:
    store = Store()
    store.put(service(5))

    assert store.put(service(6, server="")) == {A}
    assert versions(store) == []


def test_a_lease_renewal_of_a_balancer_is_no_change() -> None:
    store, lease = Store(), service(5, holderIdentity="me")
    lease |= {"apiVersion": LEASES.api_version, "kind": "Lease"}
    store.put(lease)
    renewed = copy.deepcopy(lease)
    renewed["metadata"]["resourceVersion"] = "6"
    renewed["spec"] = {"holderIdentity": "me", "renewTime": "now"}

    assert store.put(renewed) == set()
    assert versions(store) == ["6"]


def test_objects_that_a_listing_lacks_are_deleted_unless_they_are_newer() -> None:
    store = Store()
    store.put(service(5))
    other = service(9)
    other["metadata"] |= {"name": "t", "uid": "t"}
    store.put(other)

    changed = store.replace_all(SERVICES, {}, "8")

    assert changed == {A}
    assert versions(store) == ["9"]


def test_a_listing_of_one_namespace_deletes_nothing_in_another() -> None:
    store = Store()
    store.put(service(5))
    elsewhere, deleted = service(5, uid="v"), service(5, uid="w")
    elsewhere["metadata"] |= {"namespace": "team"}
    deleted["metadata"] |= {"namespace": "team", "name": "t"}
    store.put(elsewhere)
    store.put(deleted)
    apply_event(store, "DELETED", deleted)

    assert store.replace_all(SERVICES, {}, "8", within="default") == {A}

    assert versions(store, Key("team", "a")) == ["5"]
    assert store.put(deleted) == set()


def test_an_outdated_listing_restores_no_deleted_object() -> None:
    store = Store()
    store.put(service(5))
    apply_event(store, "DELETED", service(9))

    store.put(service(5))
    changed = store.replace_all(SERVICES, uids_of([service(5)]), "8")

    assert changed == set()
    assert versions(store) == []
    assert store.put(service(5)) == set()


def test_a_listing_without_differences_is_no_change() -> None:
    store = Store()
    store.put(service(5))

    assert store.put(service(5)) == set()
    assert store.replace_all(SERVICES, uids_of([service(5)]), "8") == set()


async def test_a_listing_that_goes_back_in_time_replaces_everything() -> None:
    cluster, store = FakeCluster(), Store()
    for name in ("kept", "deleted-later", "changed-later"):
        cluster.put(named(name, port=1))
    backup = cluster.copy()
    cluster.remove(SERVICES, "default", "deleted-later")
    cluster.put(named("changed-later", port=2))
    for index in range(9):
        cluster.put(named(f"created-later-{index}"))
    await list_into(store, cluster, SERVICES, None)

    cluster.restore(backup)
    _, changed = await list_into(store, cluster, SERVICES, None)
    cluster.put(named("kept", port=3))
    _, changed_again = await list_into(store, cluster, SERVICES, None)

    specs = {name: item["spec"] for (_, name), item in store.children(A).items()}
    assert (changed, changed_again) == ({A}, {A})
    assert specs == {
        "kept": {"port": 3},
        "deleted-later": {"port": 1},
        "changed-later": {"port": 1},
    }


async def test_objects_are_kept_until_a_listing_that_goes_back_is_complete() -> None:
    cluster, store = BrokenListings(), Store()
    for index in range(6):
        cluster.put(named(f"s-{index}"))
    backup = cluster.copy()
    cluster.put(named("s-0", port=1))
    await list_into(store, cluster, SERVICES, None)

    cluster.restore(backup)
    cluster.broken = True
    with pytest.raises(Gone):
        await list_into(store, cluster, SERVICES, None)
    during = len(store.children(A))
    cluster.broken = False
    await list_into(store, cluster, SERVICES, None)

    assert during == 6
    assert all(item["spec"] == {} for item in store.children(A).values())


def named(name: str, **spec: Any) -> Manifest:
    """A Service as a client applies it."""
    metadata = {"name": name, "namespace": "default", "labels": {"slotkeeper.dev/server": "a"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


class BrokenListings(FakeCluster):
    """Its listings end after the first page while `broken`."""

    broken = False

    @override
    async def pages(self, *arguments: Any) -> AsyncIterator[Listing]:
        async for page in super().pages(*arguments):
            yield page
            if self.broken:
                raise Gone(410, "Expired", "the continue parameter is too old")


def test_fields_that_nothing_reads_are_not_stored() -> None:
    store, raw = Store(), raw_server("a")
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "example.com/note": "mine",
    }
    raw["metadata"] |= {"namespace": "default", "uid": "u", "resourceVersion": "5"}
    raw["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "annotations": annotations}

    store.put(raw)

    found = store.resource(A)
    assert found is not None
    assert "managedFields" not in found["metadata"]
    assert found["metadata"]["annotations"] == {"example.com/note": "mine"}


async def test_a_server_takes_less_than_35_kilobytes(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    text = json.dumps([item for item in cluster.objects.values() if item["kind"] != "Event"])
    store = Store()
    tracemalloc.start()
    try:
        for index in range(100):
            for item in json.loads(text.replace("chat", f"chat-{index}")):
                store.put(item)
        item = None
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(store.keys) == 100
    assert used < 100 * 35_000


objects = st.builds(
    service,
    st.integers(2, 60),
    uid=st.sampled_from("uv"),
    server=st.sampled_from(["a", "b", ""]),
    port=st.integers(0, 1),
)


@given(st.lists(objects, unique_by=lambda item: item["metadata"]["resourceVersion"]), st.data())
def test_repeated_and_late_events_leave_the_newest_version(
    history: list[Manifest], data: st.DataObject
) -> None:
    store = Store()
    history.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
    late = data.draw(st.lists(st.sampled_from(history)) if history else st.just([]))

    for item in history:
        store.put(item)
    for item in late:
        store.put(item)

    last = history[-1] if history else service(1, server="")
    key = Key("default", last["metadata"].get("labels", {}).get("slotkeeper.dev/server", "none"))
    found = [*store.children(A).values(), *store.children(B).values()]
    assert found == ([last] if key.name in "ab" else [])
    assert store.resource(Key("default", "s")) is None
    assert LLAMA_SERVERS not in {kind for kind, _ in store.children(A)}
