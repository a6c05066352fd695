"""Each log is read once, few at a time, and one that fails concerns its own server only."""

import asyncio
from pathlib import Path

from typing_extensions import override

from fake_cluster import FakeCluster
from slotkeeper.kube.cluster import NotFound
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.accelerators.poller import MAX_CONCURRENT, MAX_READS, StartLogReader
from slotkeeper.reconcile.accelerators.tracker import (
    MAX_CONTAINERS,
    RETRY_SECONDS,
    StartedContainer,
    TrackedLogs,
)
from virtual_loop import run_virtual

LOGS = Path(__file__).parents[2] / "llamacpp" / "diagnosis" / "starts"
CUDA = (LOGS / "cuda-b10145.txt").read_bytes()


def container(pod: str, start: int = 1) -> StartedContainer:
    return StartedContainer(pod, "llama-server", f"{pod}-{start}", 999)


def server(number: int, pods: int = 1) -> tuple[Key, TrackedLogs]:
    logs = TrackedLogs()
    logs.track(container(f"{number}-{pod}") for pod in range(pods))
    return Key("default", f"server-{number}"), logs


def pods(cluster: FakeCluster) -> list[str]:
    return [pod for _, pod, _ in cluster.log_reads]


async def test_a_log_is_read_once_for_each_start() -> None:
    cluster = FakeCluster()
    cluster.logs["1-0"] = CUDA
    reader = StartLogReader(cluster, lambda: 0.0)
    key, logs = server(1)
    updated: list[Key] = []

    for _ in range(3):
        await reader.poll([(key, logs)], updated.append)

    assert (pods(cluster), updated) == (["1-0"], [key])
    logs.track([container("1-0", 2)])
    await reader.poll([(key, logs)], updated.append)
    assert pods(cluster) == ["1-0", "1-0"]
    assert list(logs.results()) == ["1-0-2"]


async def test_a_log_that_fails_is_tried_again_and_the_others_are_read() -> None:
    cluster = FakeCluster()
    cluster.logs = {
        "1-0": NotFound(404, "NotFound", "no such pod"),
        "2-0": RuntimeError("a defect"),
        "3-0": CUDA,
    }
    now = 0.0
    errors: list[str] = []
    updated: list[Key] = []
    reader = StartLogReader(cluster, lambda: now)
    reader.isolation.on_error = errors.append
    servers = [server(number) for number in (1, 2, 3)]

    await reader.poll(servers, updated.append)

    assert errors == ["start of logs"]
    assert updated == [servers[0][0], servers[2][0]]
    assert servers[0][1].results()["1-0-1"].error == "no such pod"
    cluster.logs["1-0"] = CUDA
    now = RETRY_SECONDS - 1
    await reader.poll(servers[:1], updated.append)
    assert servers[0][1].results()["1-0-1"].report is None
    now = RETRY_SECONDS
    await reader.poll(servers[:1], updated.append)
    assert servers[0][1].results()["1-0-1"].report


async def test_the_same_error_is_nothing_new() -> None:
    cluster = FakeCluster()
    cluster.logs["1-0"] = NotFound(404, "NotFound", "no such pod")
    now = 0.0
    updated: list[Key] = []
    reader = StartLogReader(cluster, lambda: now)
    key, logs = server(1)

    for _ in range(3):
        await reader.poll([(key, logs)], updated.append)
        now += RETRY_SECONDS

    assert (len(cluster.log_reads), updated) == (3, [key])


async def test_a_container_that_has_ended_meanwhile_is_forgotten() -> None:
    logs = TrackedLogs()
    cluster = FakeCluster()
    reader = StartLogReader(cluster, lambda: 0.0)
    logs.track([container("a")])
    started = logs.due(0.0)
    logs.track([])

    await reader._read(Key("default", "a"), logs, started[0], lambda _: None)

    assert logs == TrackedLogs()


def test_requests_at_a_time_and_in_a_round_are_limited() -> None:
    running, most = 0, 0

    class Slow(FakeCluster):
        @override
        async def start_of_log(self, *arguments: object) -> bytes:
            nonlocal running, most
            self.log_reads.append(("", str(arguments[1]), ""))
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            return CUDA

    cluster = Slow()
    reader = StartLogReader(cluster, lambda: 0.0)
    servers = [server(number) for number in range(MAX_READS * 2)]

    async def poll_twice() -> None:
        await reader.poll(servers)
        assert (most, len(cluster.log_reads)) == (MAX_CONCURRENT, MAX_READS)
        await reader.poll(servers)

    run_virtual(poll_twice())

    assert len(set(pods(cluster))) == len(servers)


def test_the_containers_of_a_server_are_limited() -> None:
    _, logs = server(1, pods=MAX_CONTAINERS + 10)

    assert len(logs.due(0.0)) == MAX_CONTAINERS
