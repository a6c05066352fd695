"""One slow, broken or lying pod concerns its own server only."""

import asyncio

from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.downloads.poller import MAX_CONCURRENT, MAX_POLLS, ProgressPoller
from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.downloads.tracker import TrackedDownload
from virtual_loop import run_virtual

REPORT = ProgressReport(phase="Downloading", downloaded_bytes=1)


def server(number: int, pods: int = 1) -> tuple[Key, TrackedDownload]:
    download = TrackedDownload()
    download.track({f"{number}-{pod}": f"{number}.{pod}:9091" for pod in range(pods)}, 0.0)
    return Key("default", f"server-{number}"), download


def latest(download: TrackedDownload) -> ProgressReport | None:
    return download.latest(download.addresses, 0.0)


async def test_a_pod_that_fails_leaves_the_others_alone() -> None:
    async def fetch(address: str) -> ProgressReport:
        match address[0]:
            case "0":
                raise ConnectionRefusedError
            case "1":
                raise ValueError("absurd")
            case "2":
                raise RuntimeError("a defect")
        return REPORT

    servers = [server(number) for number in range(4)]
    errors: list[str] = []
    poller = ProgressPoller(fetch, lambda: 0.0)
    poller.isolation.on_error = errors.append
    await poller.poll(servers)

    assert [latest(download) for _, download in servers] == [None, None, None, REPORT]
    assert errors == ["poll of downloads"]


def test_connections_at_a_time_are_limited() -> None:
    connected, most = 0, 0

    async def fetch(_: str) -> ProgressReport:
        nonlocal connected, most
        connected += 1
        most = max(most, connected)
        await asyncio.sleep(1)
        connected -= 1
        raise TimeoutError

    async def poll() -> float:
        loop = asyncio.get_running_loop()
        await ProgressPoller(fetch, loop.time).poll([server(number) for number in range(500)])
        return loop.time()

    seconds = run_virtual(poll())

    assert most == MAX_CONCURRENT
    assert seconds == MAX_POLLS / MAX_CONCURRENT


async def test_servers_take_turns() -> None:
    polled: list[str] = []
    now = 0.0

    async def fetch(address: str) -> ProgressReport:
        polled.append(address)
        return REPORT

    servers = [server(number) for number in range(MAX_POLLS * 5 // 2)]
    poller = ProgressPoller(fetch, lambda: now)
    for _ in range(3):
        now += 2
        await poller.poll(servers)

    assert len(polled) == 3 * MAX_POLLS
    assert len(set(polled)) == len(servers)


async def test_servers_without_a_download_cost_nothing() -> None:
    async def fetch(_: str) -> ProgressReport:
        raise AssertionError

    idle = TrackedDownload()
    await ProgressPoller(fetch, lambda: 0.0).poll([(Key("default", "idle"), idle)])

    assert idle == TrackedDownload()
