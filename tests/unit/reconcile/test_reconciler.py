"""Passes over one server: what they create, when they write nothing, and what ends them."""

from collections.abc import Callable

import pytest

from fake_cluster import FakeCluster, Write
from operator_harness import (
    BALANCER_HOST,
    KEY,
    Operator,
    apply_server,
    condition,
    demand_report,
    deploy,
    event_messages,
    event_reasons,
    server_status,
    update_spec,
)
from slotkeeper.api.conditions import ALWAYS
from slotkeeper.kube.kinds import CHILDREN, DEPLOYMENTS, LLAMA_SERVERS, SERVICES


async def test_a_new_server_gets_its_children_and_a_status(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)

    await operator.reconcile()

    assert set(cluster.by_name(DEPLOYMENTS)) == {"chat-replicas", "chat-balancer"}
    assert set(cluster.by_name(SERVICES)) == {"chat", "chat-replicas"}
    kinds = {found["type"]: found["status"] for found in server_status(cluster)["conditions"]}
    # No log of a replica with a GPU has been read yet, and no node has a label with its memory.
    assert kinds == dict.fromkeys(ALWAYS, "False") | {
        "AcceleratorReady": "Unknown",
        "FitsMemory": "Unknown",
    }


async def test_a_second_pass_writes_nothing(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster)
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconcile()

    assert cluster.writes == []


async def test_a_restarted_operator_writes_nothing(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=1)
    await deploy(cluster, operator, autoscaling={"maxReplicas": 3})
    await operator.run_for(2)
    cluster.writes.clear()

    restarted = Operator(cluster, balancers=operator.balancers)
    await restarted.reconcile()
    await restarted.run_for(3)

    assert cluster.writes == []


async def test_without_changes_the_operator_polls_and_neither_reads_nor_writes(
    cluster: FakeCluster, operator: Operator
) -> None:
    operator.balancers.reports[BALANCER_HOST] = demand_report()
    await deploy(cluster, operator, autoscaling={"maxReplicas": 3})
    await operator.run_for(5)
    cluster.writes.clear()
    cluster.reads = 0

    await operator.run_for(100)

    assert (cluster.reads, cluster.writes) == (0, [])
    assert operator.balancers.polls >= 100


async def test_a_server_is_ready_when_all_its_parts_are(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    ready = condition(cluster, "Ready")

    assert ready["status"] == "True"
    assert ready["message"] == "serving at http://chat.default.svc"
    assert server_status(cluster)["readyReplicas"] == 1
    assert event_messages(cluster, "Ready") == [ready["message"]]


async def test_new_demand_costs_one_write_of_the_status_and_no_read(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, slots=4)
    operator.balancers.reports[BALANCER_HOST] = demand_report(busy=3, queued=2)
    cluster.reads = 0

    await operator.run_for(1)

    assert server_status(cluster)["slots"] == {"busy": 3, "total": 4}
    assert server_status(cluster)["queued"] == 2
    assert cluster.reads == 0
    assert cluster.writes == [Write("patch_status", "LlamaServer", "chat")]


async def test_an_invalid_spec_is_a_condition_and_one_event(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    update_spec(cluster, slots=0)

    await operator.reconcile()
    await operator.reconcile()

    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.slots" in ready["message"]
    assert server_status(cluster)["observedGeneration"] == 2
    assert event_reasons(cluster).count("InvalidSpec") == 1
    assert "chat-replicas" in cluster.by_name(DEPLOYMENTS)


async def test_a_corrected_spec_makes_the_server_ready_again(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    update_spec(cluster, slots=0)
    await operator.reconcile()

    update_spec(cluster, slots=4)
    await operator.reconcile()

    assert condition(cluster, "Ready")["status"] == "True"


async def test_a_deleted_server_is_left_to_the_garbage_collector(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    delete_in_foreground(cluster)

    await operator.reconcile()
    await operator.run_for(2)

    assert cluster.writes == []
    assert operator.states.servers() == []
    assert operator.balancers.polls == 0


async def test_the_operators_own_writes_are_no_changes_when_watches_show_them(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)

    assert await operator.deliver_events() == set()


async def test_nothing_is_written_twice_before_a_watch_shows_it(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster)
    await operator.reconcile()
    cluster.writes.clear()

    await operator.reconciler.reconcile(KEY)

    assert cluster.writes == []


def delete(cluster: FakeCluster) -> None:
    cluster.remove(LLAMA_SERVERS, "default", "chat")


def delete_in_foreground(cluster: FakeCluster) -> None:
    """Delete the server after its children, as `kubectl delete --cascade=foreground` does."""
    deletion = {"deletionTimestamp": "2026-11-01T12:00:00Z"}
    cluster.edit(LLAMA_SERVERS, "default", "chat", lambda raw: raw["metadata"].update(deletion))


@pytest.mark.parametrize("delete_server", [delete, delete_in_foreground])
async def test_the_children_of_a_server_whose_deletion_no_watch_showed_are_not_created_again(
    cluster: FakeCluster, operator: Operator, delete_server: Callable[[FakeCluster], None]
) -> None:
    await deploy(cluster, operator)
    delete_server(cluster)
    for kind in CHILDREN:
        for name in list(cluster.by_name(kind)):
            cluster.remove(kind, "default", name)

    await operator.deliver_events(lambda event: event.object["kind"] != "LlamaServer")
    await operator.run_passes()

    assert cluster.writes == []
    assert operator.states.servers() == []


async def test_an_edit_that_no_watch_showed_is_applied_with_the_children_that_are_created(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator)
    update_spec(cluster, slots=8)
    cluster.remove(DEPLOYMENTS, "default", "chat-replicas")
    await operator.deliver_events(lambda event: event.object["kind"] != "LlamaServer")

    await operator.run_passes()

    assert cluster.writes.count(Write("apply", "Deployment", "chat-replicas")) == 1
    assert server_status(cluster)["observedGeneration"] == 2
