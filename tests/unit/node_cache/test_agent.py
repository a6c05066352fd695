import asyncio
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from cached_models import HOUR_NS, NODE_PATH, name_of, pod, write_model
from slotkeeper.kube.cluster import Gone, Kind, Listing, Manifest, Unreachable, WatchEvent
from slotkeeper.node_cache.agent import REFRESH_SECONDS, Agent, Node
from slotkeeper.node_cache.folder import Folder
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_cache.policy import Entry
from slotkeeper.node_folder import LIMITS_FILE, Limits

NOW = 100 * HOUR_NS


class FakePods:
    """The pods of a node, and the events of one watch after the other."""

    def __init__(self, *pods: Manifest) -> None:
        self.pods = list(pods)
        self.lists = 0
        self.error: Exception | None = None
        self.watches: list[list[WatchEvent | Exception]] = []
        self.ended = asyncio.Event()

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        node: str = "",
    ) -> Listing:
        assert (kind.plural, labels, node) == ("pods", None, "node-1")
        self.lists += 1
        if self.error:
            raise self.error
        own = [each for each in self.pods if namespace in {None, each["metadata"]["namespace"]}]
        return Listing(own, "1")

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        resource_version: str,
        *,
        node: str = "",
    ) -> AsyncIterator[WatchEvent]:
        assert (kind.plural, labels, resource_version, node) == ("pods", None, "1", "node-1")
        assert namespace is None
        if not self.watches:
            self.ended.set()
            await asyncio.Event().wait()
        for event in self.watches.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


class Harness:
    """An agent whose limit is a number of models of one mebibyte."""

    def __init__(self, root: Path, folder: Folder, models: float, *pods: Manifest) -> None:
        self.root = root
        self.pods = FakePods(*pods)
        self.registry = CollectorRegistry()
        # A model's record takes a block, too.
        limits = Limits(int(models * (2**20 + 8192)), 0)
        self.metrics = Metrics(self.registry, limits)
        node = Node("node-1", NODE_PATH, [None])
        self.agent = Agent(folder, self.pods, node, limits, self.metrics)

    def write(self, model: str, hours_ago: int, namespace: str = "team") -> None:
        used_ns = NOW - hours_ago * HOUR_NS
        write_model(self.root / namespace, model, 2**20, used_ns=used_ns)

    @property
    def models(self) -> set[str]:
        names = {name_of(each): each for each in "abcd"}
        return {names[each.stem] for each in self.root.glob("*/*.gguf")}

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"slotkeeper_node_cache_{name}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    with Folder(root) as folder:
        yield folder


async def test_the_least_recently_used_model_that_no_pod_uses_is_removed(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 2, pod("a"))
    for model, hours_ago in (("a", 9), ("b", 8), ("c", 7)):
        harness.write(model, hours_ago)

    await harness.agent.sweep(0, NOW)

    assert harness.models == {"a", "c"}
    assert harness.metric("removed_models_total") == 1
    assert harness.metric("removed_bytes_total") == pytest.approx(2**20, rel=0.1)
    assert harness.metric("in_use_bytes") == pytest.approx(2**20, rel=0.1)
    assert harness.metric("excess_bytes") == 0


async def test_the_log_has_the_time_at_which_a_removed_model_was_last_used(
    root: Path, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slotkeeper")
    harness = Harness(root, folder, 0.5)
    harness.write("a", 9)

    await harness.agent.sweep(0, NOW)

    assert f"removed team/{name_of('a')}: " in caplog.text
    # Nine hours before the hundredth of 1970.
    assert " bytes, last used at 1970-01-04T19:00:00Z" in caplog.text


async def test_what_pods_use_stays_above_the_limit_and_is_reported(
    root: Path, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(root, folder, 0.5, pod("a"), pod("b", namespace="other"))
    harness.write("a", 9)
    harness.write("b", 9, "other")

    await harness.agent.sweep(0, NOW)

    assert harness.models == {"a", "b"}
    assert harness.metric("excess_bytes") == pytest.approx(1.5 * 2**20, rel=0.1)
    assert "bytes exceed the limits, and are of files in use" in caplog.text


async def test_the_last_use_of_a_deleted_pods_model_is_when_it_was_listed_last(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 2, pod("a"))
    for model, hours_ago in (("a", 9), ("b", 8)):
        harness.write(model, hours_ago)
    await harness.agent.sweep(0, NOW)
    harness.pods.pods.clear()
    harness.write("c", 7)

    await harness.agent.sweep(REFRESH_SECONDS, NOW)

    assert harness.models == {"a", "c"}


async def test_nothing_is_removed_while_the_pods_cannot_be_listed(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 0.5)
    harness.write("a", 9)
    harness.pods.error = Unreachable(0, "Unreachable", "refused")

    with pytest.raises(Unreachable):
        await harness.agent.sweep(0, NOW)

    assert harness.models == {"a"}


async def test_pods_are_listed_only_if_something_has_to_be_removed_or_periodically(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 1)
    harness.write("a", 9)
    for second in range(0, 30, 5):
        await harness.agent.sweep(second, NOW)
    assert harness.pods.lists == 1

    await harness.agent.sweep(REFRESH_SECONDS, NOW)
    assert harness.pods.lists == 2

    harness.write("b", 8)
    await harness.agent.sweep(REFRESH_SECONDS + 5, NOW)
    assert harness.models == {"b"}


async def test_a_cache_that_is_full_of_files_in_use_does_not_list_pods_at_each_sweep(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 0.5, pod("a"))
    harness.write("a", 9)

    for second in range(0, 30, 5):
        await harness.agent.sweep(second, NOW)

    assert harness.pods.lists == 1


async def test_instead_of_a_model_that_cannot_be_removed_another_one_is(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ReadOnly(Folder):
        """Cannot remove one of the models."""

        @override
        def remove(self, entry: Entry) -> bool:
            if entry.name == name_of("a"):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return super().remove(entry)

    with ReadOnly(root) as folder:
        harness = Harness(root, folder, 1)
        harness.write("a", 9)
        harness.write("b", 8)
        await harness.agent.sweep(0, NOW)

    assert harness.models == {"a"}
    assert harness.metric("errors_total") == 1
    assert f"cannot remove team/{name_of('a')}: " in caplog.text


async def test_what_cannot_be_removed_is_not_kept_at_the_cost_of_the_limit(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 2)
    for model, hours_ago in (("a", 9), ("b", 8), ("c", 7)):
        harness.write(model, hours_ago)
    with (root / "team" / f"{name_of('a')}.gguf.lock").open("ab") as lock:
        # Of a container without a pod, such as one that was deleted by force.
        fcntl.flock(lock, fcntl.LOCK_EX)
        await harness.agent.sweep(0, NOW)

    assert harness.models == {"a", "c"}
    assert harness.metric("excess_bytes") == 0


async def test_a_folder_among_the_files_of_a_model_does_not_keep_them(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 2)
    for model, hours_ago in (("a", 9), ("b", 8), ("c", 7)):
        harness.write(model, hours_ago)
    for suffix in (".a", ".gguf.lock.lock", ".gguf.part"):
        (root / "team" / f"{name_of('a')}{suffix}" / "deep").mkdir(parents=True)

    await harness.agent.sweep(0, NOW)

    assert harness.models == {"b", "c"}


async def test_only_pods_of_the_given_namespaces_are_listed(root: Path, folder: Folder) -> None:
    harness = Harness(root, folder, 5, pod("a"), pod("b", namespace="other"))
    harness.agent._node = Node("node-1", NODE_PATH, ["team", "other"])
    for model, namespace in (("a", "team"), ("b", "other")):
        harness.write(model, 9, namespace)

    await harness.agent.sweep(0, NOW)

    assert harness.pods.lists == 2
    assert harness.metric("in_use_bytes") == pytest.approx(2 * 2**20, rel=0.1)


async def test_the_folder_of_a_pod_is_created_as_soon_as_the_pod_is_bound(
    root: Path, folder: Folder
) -> None:
    harness = Harness(root, folder, 1, pod("a"), {**pod("b"), "spec": {}})
    late, moved = pod("c", namespace="late"), pod("d", namespace="intruder", folder="victim")
    harness.pods.watches = [
        [WatchEvent("ADDED", late), WatchEvent("MODIFIED", moved), WatchEvent("BOOKMARK", {})],
        [Gone(410, "Expired", "too old")],
    ]

    await follow(harness)

    assert folder.namespaces() == ["late", "team"]
    assert (root / "late" / LIMITS_FILE).exists()


async def test_a_failed_watch_is_started_again(root: Path, folder: Folder) -> None:
    harness = Harness(root, folder, 1)
    harness.pods.watches = [
        [Unreachable(0, "Unreachable", "refused")],
        [WatchEvent("ADDED", pod("a"))],
    ]

    await follow(harness)

    assert folder.namespaces() == ["team"]
    assert harness.metric("errors_total") == 1


async def test_a_folder_that_cannot_be_created_is_reported(
    root: Path, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "team").symlink_to("/")
    harness = Harness(root, folder, 1, pod("a"), pod("b", namespace="other"))

    await follow(harness)

    assert folder.namespaces() == ["other"]
    assert harness.metric("errors_total") == 1
    assert "folder of namespace team: " in caplog.text


async def test_other_limits_are_written_into_existing_folders(root: Path, folder: Folder) -> None:
    harness = Harness(root, folder, 1)
    folder.prepare("team", Limits(1, 1))

    await harness.agent.prepare_existing()

    limits = Limits.from_json((root / "team" / LIMITS_FILE).read_bytes())
    assert limits is not None
    assert limits.max_bytes > 1


async def test_gauges_show_the_disk_and_what_is_on_it(root: Path, folder: Folder) -> None:
    harness = Harness(root, folder, 2)
    harness.write("a", 9)
    (root / "team" / "foreign").touch()

    await harness.agent.sweep(0, NOW)

    assert harness.metric("models") == 1
    assert harness.metric("foreign_files") == 1
    assert harness.metric("bytes") == pytest.approx(2**20, rel=0.1)
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    assert harness.metric("disk_free_bytes") == pytest.approx(free, rel=0.5)


async def follow(harness: Harness) -> None:
    """Follow the pods until all events have been read."""
    task = asyncio.ensure_future(harness.agent.follow(None))
    ended: Any = asyncio.ensure_future(harness.pods.ended.wait())
    await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED, timeout=20)
    assert ended.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
