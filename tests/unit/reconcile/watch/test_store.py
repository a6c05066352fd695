"""What the store makes of what watches, listings and the operator's own writes tell it."""

import copy
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_cluster import FakeCluster
from llamaservers import raw_server
from operator_harness import Operator, pod_of, roll_out, stored
from slotkeeper.kube.cluster import Manifest, WatchEvent
from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS, SERVICES
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch.store import Store, uids_of

A, B = Key("default", "a"), Key("default", "b")


def service(version: int, *, uid: str = "u", server: str = "a", **spec: Any) -> Manifest:
    metadata: Manifest = {"name": "s", "namespace": "default", "uid": uid}
    if server:
        metadata["labels"] = {"slotkeeper.dev/server": server}
    metadata["resourceVersion"] = str(version)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def shown(store: Store, kind: str, manifest: Manifest) -> set[Key]:
    return store.apply_event(WatchEvent(kind, copy.deepcopy(manifest)))


def versions(store: Store, key: Key = A) -> list[str]:
    return [item["metadata"]["resourceVersion"] for item in store.children(key).values()]


def test_what_is_shown_is_there_as_it_was() -> None:
    store = Store()

    news = shown(store, "ADDED", service(5, port=80))

    assert news == {A}
    assert store.children(A) == {(SERVICES, "s"): service(5, port=80)}


def test_a_server_its_children_and_its_pods_are_told_apart() -> None:
    cluster, store = FakeCluster(), Store()
    raw = stored(cluster, "a")
    pod = pod_of({"metadata": {"name": "a-x", "namespace": "default"}, "spec": TEMPLATE})
    pod["metadata"] |= {"uid": "p", "resourceVersion": "9"}

    news = [store.put(item) for item in (raw, service(5), pod)]

    assert news == [{A}, {A}, {A}]
    assert store.server(A) == raw
    assert store.servers == [A]
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
        id="a version of what is gone",
    ),
    pytest.param(
        [("ADDED", service(7, uid="new")), ("DELETED", service(6))], ["7"], id="an end before last"
    ),
    pytest.param(
        [("ADDED", service(5)), ("DELETED", service(6)), ("ADDED", service(7))],
        ["7"],
        id="its label came back",
    ),
]


@pytest.mark.parametrize(("events", "left"), LATE)
def test_what_comes_late_changes_nothing(events: list[tuple[str, Manifest]], left: Any) -> None:
    store = Store()

    for kind, manifest in events:
        shown(store, kind, manifest)

    assert versions(store) == left


def test_what_was_written_here_is_no_news_when_the_watch_tells_of_it() -> None:
    store = Store()
    store.put(service(5))

    news = shown(store, "ADDED", service(5))

    assert news == set()


def test_what_was_deleted_here_stays_away_until_the_watch_tells_of_it() -> None:
    store = Store()
    store.put(service(5))
    store.confirm_deleted(service(5))

    between = shown(store, "MODIFIED", service(6, port=80))
    at_last = shown(store, "DELETED", service(7))
    shown(store, "ADDED", service(8, uid="new"))

    assert (between, at_last) == (set(), set())
    assert versions(store) == ["8"]


def test_only_its_own_uid_is_deleted() -> None:
    store = Store()
    store.put(service(5, uid="new"))

    store.confirm_deleted(service(4, uid="old"))

    assert versions(store) == ["5"]


def test_a_child_whose_label_now_names_another_server_is_news_for_both() -> None:
    store = Store()
    store.put(service(5))

    news = store.put(service(6, server="b"))

    assert news == {A, B}
    assert (versions(store, A), versions(store, B)) == ([], ["6"])


def test_what_has_no_label_is_nobodys() -> None:
    store = Store()
    store.put(service(5))

    assert store.put(service(6, server="")) == {A}
    assert versions(store) == []


def test_a_balancer_that_renews_its_lease_is_no_news() -> None:
    store, lease = Store(), service(5, holderIdentity="me")
    lease |= {"apiVersion": LEASES.api_version, "kind": "Lease"}
    store.put(lease)
    renewed = copy.deepcopy(lease)
    renewed["metadata"]["resourceVersion"] = "6"
    renewed["spec"] = {"holderIdentity": "me", "renewTime": "now"}

    assert store.put(renewed) == set()
    assert versions(store) == ["6"]


def test_what_a_listing_lacks_is_gone_but_for_what_is_newer() -> None:
    store = Store()
    store.put(service(5))
    other = service(9)
    other["metadata"] |= {"name": "t", "uid": "t"}
    store.put(other)

    news = store.replace_all(SERVICES, {}, "8")

    assert news == {A}
    assert versions(store) == ["9"]


def test_a_listing_of_before_brings_nothing_back() -> None:
    store = Store()
    store.put(service(5))
    shown(store, "DELETED", service(9))

    store.put(service(5))
    news = store.replace_all(SERVICES, uids_of([service(5)]), "8")

    assert news == set()
    assert versions(store) == []
    assert store.put(service(5)) == set()


def test_a_listing_without_news_wakes_nobody() -> None:
    store = Store()
    store.put(service(5))

    assert store.put(service(5)) == set()
    assert store.replace_all(SERVICES, uids_of([service(5)]), "8") == set()


def test_what_nobody_looks_at_is_not_kept() -> None:
    store, raw = Store(), raw_server("a")
    note = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "example.com/note": "mine"}
    raw["metadata"] |= {"namespace": "default", "uid": "u", "resourceVersion": "5"}
    raw["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "annotations": note}

    store.put(raw)

    kept = store.server(A)
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"example.com/note": "mine"}


async def test_a_thousand_servers_fit() -> None:
    cluster = FakeCluster()
    stored(cluster, "chat")
    await Operator(cluster).reconcile()
    roll_out(cluster)
    await Operator(cluster).reconcile()
    text = json.dumps([item for item in cluster.objects.values() if item["kind"] != "Event"])
    store = Store()
    tracemalloc.start()
    try:
        for index in range(100):
            for item in json.loads(text.replace("chat", f"chat-{index}")):
                store.put(item)
        item = None
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(store.servers) == 100
    assert taken < 100 * 35_000


objects = st.builds(
    service,
    st.integers(2, 60),
    uid=st.sampled_from("uv"),
    server=st.sampled_from(["a", "b", ""]),
    port=st.integers(0, 1),
)


@given(st.lists(objects, unique_by=lambda item: item["metadata"]["resourceVersion"]), st.data())
def test_whatever_is_shown_twice_or_late_the_newest_version_stays(
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
    assert store.server(Key("default", "s")) is None
    assert LLAMA_SERVERS not in {kind for kind, _ in store.children(A)}
