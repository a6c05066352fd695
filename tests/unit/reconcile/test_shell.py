"""What wakes whom."""

from random import Random

import pytest
from prometheus_client import CollectorRegistry

from fake_cluster import FakeCluster
from operating import KEY, Operator, change_spec, numbers, roll_out, stored
from slotkeeper.kube.cluster import ApiError, NotFound
from slotkeeper.kube.kinds import LLAMA_SERVERS
from slotkeeper.reconcile.lease import Lease, Place
from slotkeeper.reconcile.metrics import Metrics
from slotkeeper.reconcile.queue import Key, Queue
from slotkeeper.reconcile.shell import Shell


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def shell(cluster: FakeCluster, operator: Operator, registry: CollectorRegistry) -> Shell:
    queue = Queue(Random(1), later=lambda *_: None)
    clock = operator.time.clock
    return Shell(
        cluster,
        operator.reconciler,
        operator.demand,
        queue,
        Lease(cluster, Place("system", "a"), clock),
        Metrics(registry, lambda: len(queue)),
        clock.monotonic,
    )


async def ready(cluster: FakeCluster, shell: Shell) -> None:
    stored(cluster)
    await shell.work(KEY)
    roll_out(cluster)
    shell.child_seen(KEY)
    await shell.work(KEY)
    shell.queue._due.clear()


async def test_an_event_of_a_child_wakes_its_server(shell: Shell) -> None:
    shell.child_seen(KEY)

    assert len(shell.queue) == 1


async def test_the_event_of_a_status_just_written_wakes_nobody(
    cluster: FakeCluster, shell: Shell
) -> None:
    await ready(cluster, shell)
    version = cluster.named(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"]

    shell.server_seen(KEY, version)

    assert len(shell.queue) == 0


async def test_an_edited_server_is_woken(cluster: FakeCluster, shell: Shell) -> None:
    await ready(cluster, shell)
    change_spec(cluster, lambda spec: spec.update(replicas=2))

    shell.server_seen(KEY, cluster.named(LLAMA_SERVERS)["chat"]["metadata"]["resourceVersion"])

    assert len(shell.queue) == 1


async def test_new_numbers_wake_a_server_and_the_same_ones_do_not(
    cluster: FakeCluster, operator: Operator, shell: Shell
) -> None:
    await ready(cluster, shell)
    operator.balancers.says["10.0.0.1"] = numbers(busy=2)

    await shell.look()
    woken = len(shell.queue)
    await shell.work(KEY)
    shell.queue._due.clear()
    await shell.look()

    assert (woken, len(shell.queue)) == (1, 0)


async def test_a_resync_wakes_all_that_there_is_and_all_that_was(
    cluster: FakeCluster, shell: Shell
) -> None:
    await ready(cluster, shell)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    stored(cluster, "other")

    await shell.resync(None)

    assert set(shell.queue._due) == {KEY, Key("default", "other")}


async def test_a_resync_without_a_crd_ends_the_operator(cluster: FakeCluster, shell: Shell) -> None:
    refusal = NotFound(404, "NotFound", "page not found")
    cluster.refuse = lambda verb, _: refusal if verb == "list" else None

    with pytest.raises(NotFound):
        await shell.resync(None)


async def test_a_resync_that_fails_is_tried_next_time(cluster: FakeCluster, shell: Shell) -> None:
    refusal = ApiError(500, "InternalError", "etcd")
    cluster.refuse = lambda verb, _: refusal if verb == "list" else None

    await shell.resync(None)

    assert len(shell.queue) == 0


async def test_reconciles_are_counted(
    cluster: FakeCluster, shell: Shell, registry: CollectorRegistry
) -> None:
    await ready(cluster, shell)
    cluster.remove(LLAMA_SERVERS, "default", "chat")
    wanted = registry.get_sample_value(
        "slotkeeper_autoscaler_wanted_replicas", {"namespace": "default", "name": "chat"}
    )

    shell.child_seen(KEY)
    await shell.work(KEY)
    await shell.work(KEY)

    counted = registry.get_sample_value("slotkeeper_operator_reconciles_total", {"result": "done"})
    gone = registry.get_sample_value(
        "slotkeeper_autoscaler_wanted_replicas", {"namespace": "default", "name": "chat"}
    )
    assert (wanted, counted, gone) == (1, 4, None)
