"""A server that is too large or too deep is reported and kept small, and no other notices it."""

from typing import Any

import pytest

from fake_cluster import FakeCluster
from operator_harness import KEY, Operator, apply_server, condition, deploy, event_messages
from slotkeeper.kube.cluster import UNREADABLE, Manifest
from slotkeeper.kube.decode import outline
from slotkeeper.kube.kinds import DEPLOYMENTS, LLAMA_SERVERS
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.watch.kept import MAX_CHILD_BYTES, MAX_RESOURCE_BYTES, kept
from slotkeeper.reconcile.workqueue import RetryError

OTHER = Key("default", "other")


def large_volume(size: int) -> Any:
    return {"volumes": [{"name": "large", "configMap": {"name": "x" * size}}]}


def unreadable(operator: Operator, kind: str) -> float | None:
    name = "slotkeeper_operator_unreadable_objects"
    return operator.registry.get_sample_value(name, {"kind": kind})


async def test_a_large_server_is_invalid_and_named(
    cluster: FakeCluster, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    apply_server(cluster, podTemplate=large_volume(MAX_RESOURCE_BYTES))
    apply_server(cluster, "other")

    await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert f"bytes as JSON, at most {MAX_RESOURCE_BYTES}" in ready["message"]
    assert [ready["message"]] == event_messages(cluster, "InvalidSpec")
    assert "LlamaServer default/chat is not read: it has" in caplog.text
    assert unreadable(operator, "LlamaServer") == 1
    assert set(cluster.by_name(DEPLOYMENTS)) == {"other-replicas", "other-balancer"}


async def test_its_report_is_written_once(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, podTemplate=large_volume(MAX_RESOURCE_BYTES))
    await operator.reconcile()
    cluster.writes.clear()

    operator.time.elapsed += 100
    await operator.reconcile()
    operator.relist()
    await operator.reconcile()

    assert cluster.writes == []


async def test_a_server_that_becomes_smaller_is_served(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, podTemplate=large_volume(MAX_RESOURCE_BYTES))
    await operator.reconcile()

    cluster.edit(LLAMA_SERVERS, *KEY, lambda raw: raw["spec"].pop("podTemplate"))
    await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] != "InvalidSpec"
    assert unreadable(operator, "LlamaServer") == 0
    assert "chat-replicas" in cluster.by_name(DEPLOYMENTS)


async def test_a_server_that_grows_keeps_its_replicas(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    large = large_volume(MAX_RESOURCE_BYTES)
    cluster.edit(LLAMA_SERVERS, *KEY, lambda raw: raw["spec"].update(podTemplate=large))
    await operator.reconcile()

    assert condition(cluster, "Ready")["reason"] == "InvalidSpec"
    assert {write.verb for write in cluster.writes} == {"patch_status"}


async def test_a_deleted_one_is_not_counted(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, podTemplate=large_volume(MAX_RESOURCE_BYTES))
    await operator.reconcile()

    cluster.remove(LLAMA_SERVERS, *KEY)
    await operator.reconcile()

    assert unreadable(operator, "LlamaServer") == 0


async def test_an_outline_from_the_api_client_is_invalid(
    cluster: FakeCluster, operator: Operator
) -> None:
    raw = apply_server(cluster)
    operator.store.put(outline(raw, "nested deeper than 64 levels"))

    await operator.run_passes()

    message = condition(cluster, "Ready")["message"]
    assert message == "the resource cannot be read: nested deeper than 64 levels"


async def test_readable_servers_come_first(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, podTemplate=large_volume(MAX_RESOURCE_BYTES))
    apply_server(cluster, "other")

    await operator.runtime.resync()

    assert operator.due_keys() == [OTHER, KEY]


async def test_a_large_child_stops_only_its_own_server(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    def grow(deployment: Any) -> None:
        deployment["metadata"].setdefault("annotations", {})["large"] = "x" * MAX_CHILD_BYTES

    cluster.edit(DEPLOYMENTS, KEY.namespace, "chat-replicas", grow)

    with pytest.raises(RetryError, match="Deployment chat-replicas cannot be read: it has"):
        await operator.reconcile()
    apply_server(cluster, "other")
    await operator.reconcile(OTHER)
    assert "other-replicas" in cluster.by_name(DEPLOYMENTS)
    assert unreadable(operator, "Deployment") == 1


def server(**fields: Any) -> Manifest:
    metadata = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1"}
    return {
        "apiVersion": "slotkeeper.dev/v1alpha1",
        "kind": "LlamaServer",
        "metadata": metadata,
    } | (fields)


def test_what_nothing_reads_does_not_count() -> None:
    raw = server()
    raw["metadata"]["managedFields"] = [{"fieldsV1": "x" * MAX_RESOURCE_BYTES}]
    raw["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "x" * MAX_RESOURCE_BYTES
    }

    assert not kept(LLAMA_SERVERS, raw).unreadable


def test_an_outline_is_bounded_too() -> None:
    huge = {"x": "y" * MAX_RESOURCE_BYTES}
    raw = server(spec=huge, status=huge)
    raw["metadata"]["labels"] = huge
    raw["metadata"]["ownerReferences"] = [{"uid": "x" * MAX_RESOURCE_BYTES}]

    found = kept(LLAMA_SERVERS, raw)

    assert len(found.body) < 1000
    assert set(found.manifest) == {"apiVersion", "kind", "metadata", UNREADABLE}
